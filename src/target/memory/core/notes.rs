//! The notes of a core file: its process, its threads with their registers, and the files that were mapped (`struct
//! elf_prstatus` and `elf_prpsinfo`, include/uapi/linux/elfcore.h; `fill_files_note` in fs/binfmt_elf.c).

use crate::layout::{int, word};
use crate::target::image::DeadThread;
use crate::target::threads::{Activity, Wait};

const NT_PRSTATUS: i32 = 1;
const NT_PRPSINFO: i32 = 3;
const NT_FILE: i32 = 0x4649_4c45;

/// Where `pr_reg` begins in `struct elf_prstatus`, and numbers of registers in it (`struct user_regs_struct`, x86-64).
const REGISTERS: usize = 112;
const RAX: usize = 10;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;
const FS_BASE: usize = 21;

/// What a system call that a signal wakes leaves for the kernel to go by: `EINTR`, or one of the codes for its restart
/// (include/linux/errno.h).
const INTERRUPTED: [i64; 5] = [-4, -512, -513, -514, -516];

/// What the notes say.
#[derive(Debug, Default)]
pub struct Notes {
    pub pid: Option<i32>,
    pub name: String,
    pub command: String,
    pub threads: Vec<DeadThread>,
    pub files: Vec<Mapped>,
    /// Whether some are not in the file.
    pub is_cut: bool,
}

/// A mapped file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    pub start: u64,
    pub end: u64,
    pub offset: u64,
    pub path: String,
}

impl Notes {
    /// Reads a note segment: heads of three words (length of the name and of the contents, type), both padded to 4.
    pub fn add(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((kind, contents, after)) = note(rest) {
            match kind {
                NT_PRSTATUS => {
                    let mut thread = thread(contents);
                    // The kernel writes the thread that died first, and its signal with each.
                    if !self.threads.is_empty() {
                        thread.iter_mut().for_each(|thread| thread.signal = 0);
                    }
                    self.threads.extend(thread);
                }
                NT_PRPSINFO => {
                    self.pid = int(contents, 24).filter(|pid| *pid > 0);
                    self.name = text(contents.get(40..56).unwrap_or_default());
                    self.command = text(contents.get(56..136).unwrap_or_default());
                }
                NT_FILE => self.files = mapped(contents).unwrap_or_default(),
                _ => {}
            }
            rest = after;
        }
    }
}

/// A thread and what its registers say of it.
fn thread(status: &[u8]) -> Option<DeadThread> {
    let register = |number: usize| {
        let known = cfg!(target_arch = "x86_64");
        known.then(|| word(status, REGISTERS + 8 * number))?
    };
    let asleep = register(RAX).is_some_and(|rax| INTERRUPTED.contains(&(rax as i64)));
    let call = register(ORIG_RAX)
        .filter(|_| asleep)
        .and_then(|call| i32::try_from(call).ok());
    Some(DeadThread {
        tid: int(status, 32)?,
        pointer: register(FS_BASE).unwrap_or(0),
        activity: register(ORIG_RAX).map(|_| {
            let wait = call.map(|number| Wait {
                number,
                argument: register(RDI).unwrap_or(0),
            });
            Activity::at_death(wait)
        }),
        // `pr_cursig` is a short.
        signal: int(status, 12).map_or(0, |signal| signal & 0xffff),
    })
}

/// The first note: its type, contents, and what follows it.
fn note(bytes: &[u8]) -> Option<(i32, &[u8], &[u8])> {
    let length = |at| usize::try_from(int(bytes, at)?).ok();
    let name = length(0)?.checked_next_multiple_of(4)?;
    let (start, size) = (name.checked_add(12)?, length(4)?);
    let contents = bytes.get(start..start.checked_add(size)?)?;
    let after = start.checked_add(size.checked_next_multiple_of(4)?)?;
    Some((
        int(bytes, 8)?,
        contents,
        bytes.get(after..).unwrap_or_default(),
    ))
}

/// Text up to a NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default())
        .trim_end()
        .to_string()
}

/// `NT_FILE`: count, page size, then start, end and offset in pages of each, then their names.
fn mapped(bytes: &[u8]) -> Option<Vec<Mapped>> {
    let (count, page) = (word(bytes, 0)?, word(bytes, 8)?);
    let size = usize::try_from(count.checked_mul(24)?).ok()?;
    let table = bytes.get(16..size.checked_add(16)?)?;
    let names = bytes.get(size + 16..)?.split(|byte| *byte == 0);
    let entry = |(entry, name): (&[u8], &[u8])| {
        let (start, end) = (word(entry, 0)?, word(entry, 8)?);
        (start < end).then_some(())?;
        Some(Mapped {
            start,
            end,
            offset: word(entry, 16)?.checked_mul(page)?,
            path: String::from_utf8_lossy(name).into_owned(),
        })
    };
    Some(
        table
            .chunks_exact(24)
            .zip(names)
            .filter_map(entry)
            .collect(),
    )
}
