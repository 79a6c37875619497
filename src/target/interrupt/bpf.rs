//! The system call bpf(2) as far as it is needed here, and the ring buffer (Documentation/bpf/ringbuf.rst).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::program::Instruction;

/// Commands (`enum bpf_cmd`).
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const PROG_LOAD: i32 = 5;

/// Kinds of maps (`enum bpf_map_type`).
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const RINGBUF: u32 = 27;

/// `BPF_PROG_TYPE_PERF_EVENT`.
const PERF_EVENT: u32 = 7;

/// The kernel lends `bpf_probe_read_user` only to programs that say so.
const LICENSE: &[u8] = b"Dual MIT/GPL\0";

/// Of what the verifier says, so much is kept.
const LOG: usize = 64 << 10;

/// `union bpf_attr`: numbers by their offsets.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    fn new() -> Attributes {
        Attributes([0; 128])
    }

    fn u32(mut self, offset: usize, value: u32) -> Attributes {
        if let Some(room) = self.0.get_mut(offset..offset + 4) {
            room.copy_from_slice(&value.to_le_bytes());
        }
        self
    }

    fn u64(mut self, offset: usize, value: u64) -> Attributes {
        if let Some(room) = self.0.get_mut(offset..offset + 8) {
            room.copy_from_slice(&value.to_le_bytes());
        }
        self
    }

    fn pointer<T>(self, offset: usize, to: *const T) -> Attributes {
        self.u64(offset, to as u64)
    }
}

/// # Safety
/// What the attributes point to must be there, as long as the command says, until this returns.
unsafe fn bpf(command: i32, attributes: &mut Attributes) -> io::Result<i32> {
    let size = size_of::<Attributes>();
    // SAFETY: the kernel reads and writes `size` bytes, all of ours; for the rest the caller answers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

fn owned(descriptor: i32) -> File {
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    unsafe { File::from_raw_fd(descriptor) }
}

fn create(kind: u32, key: u32, value: u32, entries: u32) -> io::Result<File> {
    let attributes = || {
        Attributes::new()
            .u32(0, kind)
            .u32(4, key)
            .u32(8, value)
            .u32(12, entries)
    };
    // SAFETY: nothing is pointed to.
    unsafe { bpf(MAP_CREATE, &mut attributes()) }.map(owned)
}

/// A map from `u32` to values of `value` bytes.
pub fn hash(value: usize, entries: u32) -> io::Result<File> {
    create(HASH, 4, value as u32, entries)
}

/// `entries` rooms of `value` bytes.
pub fn array(value: u32, entries: u32) -> io::Result<File> {
    create(ARRAY, 4, value, entries)
}

/// Puts `value` into a map, which must be one whose values are of that size. A program sees the old one or the new one.
pub fn update<T: Copy>(map: &File, key: u32, value: &T) -> io::Result<()> {
    let mut attributes = Attributes::new()
        .u32(0, map.as_raw_fd() as u32)
        .pointer(8, &raw const key)
        .pointer(16, &raw const *value);
    // SAFETY: key and value outlive the call and are as long as the map's.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attributes) }.map(|_| ())
}

/// Takes a key out of a map.
pub fn delete(map: &File, key: u32) -> io::Result<()> {
    let mut attributes = Attributes::new()
        .u32(0, map.as_raw_fd() as u32)
        .pointer(8, &raw const key);
    // SAFETY: the key outlives the call and is as long as the map's.
    unsafe { bpf(MAP_DELETE_ELEM, &mut attributes) }.map(|_| ())
}

/// Loads a program; where the kernel refuses it, the error has the end of what the verifier says.
pub fn load(program: &[Instruction]) -> Result<File, (io::Error, String)> {
    let attributes = || {
        let mut name = [0u8; 8];
        name.copy_from_slice(b"biopsy\0\0");
        Attributes::new()
            .u32(0, PERF_EVENT)
            .u32(4, program.len() as u32)
            .pointer(8, program.as_ptr())
            .pointer(16, LICENSE.as_ptr())
            .u64(48, u64::from_le_bytes(name))
    };
    // SAFETY: instructions and license outlive the call; the license ends with a zero byte.
    let refused = match unsafe { bpf(PROG_LOAD, &mut attributes()) } {
        Ok(descriptor) => return Ok(owned(descriptor)),
        Err(refused) => refused,
    };
    let mut log = vec![0u8; LOG];
    let mut attributes = attributes()
        .u32(24, 1)
        .u32(28, LOG as u32)
        .pointer(32, log.as_mut_ptr());
    // SAFETY: the same, and the kernel writes at most as many bytes to `log` as it has.
    if let Ok(descriptor) = unsafe { bpf(PROG_LOAD, &mut attributes) } {
        return Ok(owned(descriptor));
    }
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(LOG);
    let text = String::from_utf8_lossy(log.get(..end).unwrap_or_default()).into_owned();
    Err((refused, text))
}

/// Size of a page (x86-64).
const PAGE: usize = 4096;

/// Before each record: its length with two flags, and a word for the kernel.
const HEADER: u64 = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// A ring buffer that programs write to; unmapped when dropped.
#[derive(Debug)]
pub struct RingBuffer {
    map: File,
    size: usize,
    /// Up to where we have read: a page that is ours to write.
    consumer: NonNull<u8>,
    /// Up to where the kernel has written, then the records, twice in a row so that none is cut.
    producer: NonNull<u8>,
    position: u64,
}

// SAFETY: the mappings belong to the process, not to a thread, and are only read and written through `&mut self`.
unsafe impl Send for RingBuffer {}

fn map_pages(map: &File, length: usize, protection: i32, offset: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address that the kernel chooses.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            protection,
            libc::MAP_SHARED,
            map.as_raw_fd(),
            offset as libc::off_t,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

impl RingBuffer {
    /// Of `size` bytes, a power of two of whole pages.
    pub fn new(size: usize) -> io::Result<RingBuffer> {
        let map = create(RINGBUF, 0, 0, size as u32)?;
        let consumer = map_pages(&map, PAGE, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        match map_pages(&map, PAGE + 2 * size, libc::PROT_READ, PAGE) {
            Ok(producer) => Ok(RingBuffer {
                map,
                size,
                consumer,
                producer,
                position: 0,
            }),
            Err(error) => {
                // SAFETY: the mapping that was just made, which nobody else knows.
                unsafe { libc::munmap(consumer.as_ptr().cast(), PAGE) };
                Err(error)
            }
        }
    }

    /// For the program.
    pub fn descriptor(&self) -> i32 {
        self.map.as_raw_fd()
    }

    /// Copies the next record to `into`, in place of what is there; false when there is none.
    pub fn next(&mut self, into: &mut Vec<u8>) -> bool {
        loop {
            // SAFETY: the first word of the mapping, aligned; the kernel writes it while we read it.
            let written = unsafe { AtomicU64::from_ptr(self.producer.as_ptr().cast()) };
            let left = written.load(Ordering::Acquire).wrapping_sub(self.position);
            if left < HEADER || left > self.size as u64 {
                return false;
            }
            let at = PAGE + (self.position as usize & (self.size - 8));
            // SAFETY: `at` is a multiple of 8 of at most PAGE + size - 8, inside of the mapping. The kernel clears the flag
            // that we look at when the record is done.
            let length = unsafe {
                let word = self.producer.as_ptr().add(at).cast::<u32>();
                AtomicU32::from_ptr(word).load(Ordering::Acquire)
            };
            if length & BUSY != 0 {
                return false;
            }
            let bytes = (length & !(BUSY | DISCARDED)) as usize;
            let whole = (bytes as u64 + HEADER).next_multiple_of(8);
            if whole > left {
                return false;
            }
            let taken = length & DISCARDED == 0;
            if taken {
                into.clear();
                // SAFETY: at + 8 + bytes is at most PAGE + 2 * size, inside of the mapping, as `bytes` is less than the ring's
                // size. The kernel does not write there before our position has passed it.
                let record = unsafe {
                    let start = self.producer.as_ptr().add(at + HEADER as usize);
                    std::slice::from_raw_parts(start, bytes)
                };
                into.extend_from_slice(record);
            }
            self.position = self.position.wrapping_add(whole);
            // SAFETY: the first word of our page, aligned; the kernel reads it while we write it.
            let ours = unsafe { AtomicU64::from_ptr(self.consumer.as_ptr().cast()) };
            ours.store(self.position, Ordering::Release);
            if taken {
                return true;
            }
        }
    }
}

impl Drop for RingBuffer {
    fn drop(&mut self) {
        // SAFETY: the two mappings that `new` made, which nobody else knows.
        unsafe {
            libc::munmap(self.consumer.as_ptr().cast(), PAGE);
            libc::munmap(self.producer.as_ptr().cast(), PAGE + 2 * self.size);
        }
    }
}
