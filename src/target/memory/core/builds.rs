//! Which build of a program or library a core file was made with, and which one lies here: their build ids
//! (`NT_GNU_BUILD_ID`, include/uapi/linux/elf.h; the note as linkers write it, in the first page).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{PT_NOTE, half, open_regular};
use crate::layout::{int, word};
use crate::target::image::Image;
use crate::target::maps::Region;
use crate::target::memory::pages::PAGE;
use crate::units::printable;

const NT_GNU_BUILD_ID: i32 = 3;
/// Bytes of a build id that are read: linkers write up to 20.
const LONGEST: usize = 64;
/// Program headers and notes that are looked at.
const MOST: usize = 64;

/// What the core file's first page of `region`'s file says, and what the file that lies there does; a difference in words, with
/// the file's name: that it is another one (`is_replaced`), or is not here.
pub fn difference(image: &Image, region: &Region, is_replaced: bool) -> String {
    let name = printable(&region.name);
    let own = image.bytes(region.start, PAGE as usize).and_then(of_page);
    let here = open_regular(Path::new(&region.name)).and_then(|file| of_file(&file));
    let of_own = own.as_ref().map(|own| format!("build id {own}"));
    match (is_replaced, of_own) {
        (true, Some(own)) => {
            let here = here.map_or_else(
                || "a file without one".to_string(),
                |here| format!("build id {here}"),
            );
            format!(
                "{name} is not the file that the core was made with: that has {own}, here is {here}"
            )
        }
        (true, None) => format!("{name} is not the file any more that the core was made with"),
        (false, Some(own)) => format!("{name} ({own}) is not on this machine"),
        (false, None) => format!("{name} is not on this machine"),
    }
}

fn of_file(file: &File) -> Option<String> {
    let mut page = vec![0; PAGE as usize];
    let length = file.read_at(&mut page, 0).ok()?;
    of_page(page.get(..length)?)
}

/// The build id in the first page of an ELF file, in hexadecimal digits.
pub fn of_page(page: &[u8]) -> Option<String> {
    if !page.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(word(page, 32)?).ok()?;
    let (size, count) = (usize::from(half(page, 54)?), usize::from(half(page, 56)?));
    let headers = page.get(table..)?.chunks_exact(size.max(56));
    headers.take(count.min(MOST)).find_map(|header| {
        let notes = usize::try_from(word(header, 8)?).ok()?;
        let length = usize::try_from(word(header, 32)?).ok()?;
        let notes = page.get(notes..notes.checked_add(length)?)?;
        (int(header, 0)? == PT_NOTE).then(|| in_notes(notes))?
    })
}

fn in_notes(mut notes: &[u8]) -> Option<String> {
    for _ in 0..MOST {
        let (name, length) = (int(notes, 0)?, int(notes, 4)?);
        let (name, length) = (usize::try_from(name).ok()?, usize::try_from(length).ok()?);
        let text = notes.get(12..12usize.checked_add(name)?)?;
        let start = 12 + name.checked_next_multiple_of(4)?;
        let end = start.checked_add(length)?;
        if int(notes, 8)? == NT_GNU_BUILD_ID && text == b"GNU\0" {
            let id = notes.get(start..end)?;
            let digits = id.iter().take(LONGEST).map(|byte| format!("{byte:02x}"));
            return Some(digits.collect());
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(note: &[u8]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[..6].copy_from_slice(b"\x7fELF\x02\x01");
        page[32..40].copy_from_slice(&64u64.to_le_bytes());
        page[54..58].copy_from_slice(&[56, 0, 1, 0]);
        page[64..68].copy_from_slice(&PT_NOTE.to_le_bytes());
        page[72..80].copy_from_slice(&512u64.to_le_bytes());
        page[96..104].copy_from_slice(&(note.len() as u64).to_le_bytes());
        page[512..512 + note.len()].copy_from_slice(note);
        page
    }

    #[test]
    fn build_ids_are_read_and_nonsense_has_none() {
        let other = b"\x04\0\0\0\x03\0\0\0\x01\0\0\0GNU\0abc\0";
        let id = b"\x04\0\0\0\x03\0\0\0\x03\0\0\0GNU\0\x01\xab\xff\0";
        let found = of_page(&page(&[&other[..], id].concat()));
        assert_eq!(found.as_deref(), Some("01abff"));
        assert_eq!(of_page(&page(other)), None);
        assert_eq!(of_page(&page(b"\xff\xff\xff\xff\xff\xff\xff\xff")), None);
        for length in [0, 60, 100, 520] {
            assert_eq!(of_page(&page(id)[..length]), None);
        }
    }
}
