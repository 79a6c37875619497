//! Names of system calls that threads sleep in, by the number that this machine's kernel uses.
//!
//! Only those that can block for long: a thread that is seen asleep is in one of them, in all likelihood.

use libc::c_long;

macro_rules! table {
    ($($constant:ident $name:literal),* $(,)?) => {
        &[$((libc::$constant, $name)),*]
    };
}

const CALLS: &[(c_long, &str)] = table![
    SYS_futex "futex", SYS_read "read", SYS_write "write", SYS_readv "readv", SYS_writev "writev",
    SYS_pread64 "pread64", SYS_pwrite64 "pwrite64", SYS_preadv "preadv", SYS_pwritev "pwritev",
    SYS_ppoll "ppoll", SYS_pselect6 "pselect6", SYS_epoll_pwait "epoll_pwait",
    SYS_epoll_pwait2 "epoll_pwait2", SYS_nanosleep "nanosleep",
    SYS_clock_nanosleep "clock_nanosleep", SYS_restart_syscall "restart_syscall",
    SYS_accept "accept", SYS_accept4 "accept4", SYS_connect "connect", SYS_recvfrom "recvfrom",
    SYS_recvmsg "recvmsg", SYS_recvmmsg "recvmmsg", SYS_sendto "sendto", SYS_sendmsg "sendmsg",
    SYS_sendmmsg "sendmmsg", SYS_wait4 "wait4", SYS_waitid "waitid",
    SYS_rt_sigtimedwait "rt_sigtimedwait", SYS_rt_sigsuspend "rt_sigsuspend", SYS_flock "flock",
    SYS_fcntl "fcntl", SYS_fsync "fsync", SYS_fdatasync "fdatasync",
    SYS_sync_file_range "sync_file_range", SYS_openat "openat", SYS_newfstatat "newfstatat",
    SYS_statx "statx", SYS_getdents64 "getdents64", SYS_unlinkat "unlinkat",
    SYS_mkdirat "mkdirat", SYS_ftruncate "ftruncate", SYS_fallocate "fallocate",
    SYS_close "close", SYS_sendfile "sendfile", SYS_splice "splice", SYS_vmsplice "vmsplice",
    SYS_copy_file_range "copy_file_range", SYS_getrandom "getrandom", SYS_ioctl "ioctl",
    SYS_io_uring_enter "io_uring_enter", SYS_io_getevents "io_getevents", SYS_msgrcv "msgrcv",
    SYS_msgsnd "msgsnd", SYS_semop "semop", SYS_semtimedop "semtimedop",
    SYS_mq_timedreceive "mq_timedreceive", SYS_mq_timedsend "mq_timedsend", SYS_mmap "mmap",
    SYS_munmap "munmap", SYS_mprotect "mprotect", SYS_madvise "madvise", SYS_msync "msync",
    SYS_sync "sync", SYS_execve "execve", SYS_exit "exit", SYS_exit_group "exit_group",
    SYS_clone "clone", SYS_sched_yield "sched_yield", SYS_kill "kill", SYS_process_vm_readv "process_vm_readv",
];

/// Older calls, which newer architectures do without.
#[cfg(target_arch = "x86_64")]
const OLDER: &[(c_long, &str)] = table![
    SYS_poll "poll", SYS_select "select", SYS_epoll_wait "epoll_wait", SYS_pause "pause",
    SYS_open "open", SYS_stat "stat", SYS_lstat "lstat", SYS_unlink "unlink", SYS_rename "rename",
    SYS_mkdir "mkdir", SYS_rmdir "rmdir", SYS_getdents "getdents", SYS_fork "fork", SYS_vfork "vfork",
];

#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[(c_long, &str)] = &[];

/// The name of a system call; `None` for one that is not in the list.
pub fn name(number: i32) -> Option<&'static str> {
    let number = c_long::from(number);
    let mut calls = CALLS.iter().chain(OLDER);
    calls
        .find(|(known, _)| *known == number)
        .map(|(_, name)| *name)
}

/// Whether this is `futex`, which all locks of user space sleep in.
pub fn is_futex(number: i32) -> bool {
    c_long::from(number) == libc::SYS_futex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_stands_once() {
        let calls: Vec<_> = CALLS.iter().chain(OLDER).collect();
        for (at, (number, name)) in calls.iter().enumerate() {
            let same = |(other, text): &&(c_long, &str)| other == number || text == name;
            assert!(!calls[..at].iter().any(same), "{name}");
        }
        assert_eq!(name(-1), None);
        assert!(is_futex(i32::try_from(libc::SYS_futex).expect("small")));
    }
}
