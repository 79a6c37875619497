//! Symbols of a loaded binary, looked up in the target's own memory: ELF header, program headers, dynamic
//! section, GNU hash table (System V gABI chapter 5; the hash table as described in glibc's elf/dl-lookup.c).
//!
//! The file on disk is never asked: it may be gone, upgraded, or in another mount namespace, while the dynamic
//! symbols are always mapped.

use super::memory::{Memory, read_c_string};

/// Program header types and dynamic tags.
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const ET_DYN: u16 = 3;

/// Longest chain of one hash bucket, and largest table, that is believed.
const LONGEST_CHAIN: u64 = 1 << 16;

/// Bytes of the table for unwinding that are read: a million functions.
const LARGEST_UNWIND: u64 = 8 << 20;

/// The dynamic symbols of one loaded binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbols {
    /// Added to a symbol's value; 0 for programs that are not position-independent.
    bias: u64,
    symbols: u64,
    strings: u64,
    gnu_hash: Option<u64>,
    hash: Option<u64>,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn int(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// What program headers say.
struct Headers {
    bias: u64,
    /// Address and size, before the bias is added.
    dynamic: Option<(u64, u64)>,
    unwind: Option<(u64, u64)>,
    /// Behind the last byte that is loaded, zeroed data included.
    end: u64,
}

impl Headers {
    fn read(memory: &impl Memory, start: u64) -> Option<Headers> {
        let mut head = [0; 64];
        memory.read(start, &mut head).ok()?;
        // Class 2 is 64 bits, data 1 is little-endian.
        if !head.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let kind = half(&head, 16)?;
        let (table, size, count) = (word(&head, 32)?, half(&head, 54)?, half(&head, 56)?);
        if size < 56 || count > 256 {
            return None;
        }
        let mut headers = vec![0; usize::from(size) * usize::from(count)];
        memory.read(start.checked_add(table)?, &mut headers).ok()?;
        let (mut lowest, mut dynamic, mut unwind) = (None, None, None);
        let mut end = 0;
        for header in headers.chunks_exact(usize::from(size)) {
            let place = (word(header, 16)?, word(header, 40)?);
            let kind = int(header, 0)?;
            if kind == PT_LOAD {
                end = place.0.saturating_add(place.1).max(end);
            }
            match kind {
                PT_LOAD if lowest.is_none() => lowest = Some(place.0 & !0xfff),
                PT_DYNAMIC => dynamic = Some(place),
                PT_GNU_EH_FRAME => unwind = Some(place),
                _ => {}
            }
        }
        let bias = if kind == ET_DYN {
            start.wrapping_sub(lowest?)
        } else {
            0
        };
        Some(Headers {
            bias,
            dynamic,
            unwind,
            end,
        })
    }
}

/// Where the data of the binary whose first page is mapped at `start` ends, zeroed data included.
pub fn data_end(memory: &impl Memory, start: u64) -> Option<u64> {
    let headers = Headers::read(memory, start)?;
    Some(headers.bias.wrapping_add(headers.end))
}

/// Where the functions of a loaded binary start, those of the pieces that compilers move out of them too, rising: from the
/// table for unwinding, which stripped binaries keep (`.eh_frame_hdr`, Linux Standard Base Core 5.0, 10.6.2). Empty where it
/// is missing or unlike what linkers write.
pub fn function_starts(memory: &impl Memory, start: u64) -> Vec<u64> {
    starts(memory, start).unwrap_or_default()
}

fn starts(memory: &impl Memory, start: u64) -> Option<Vec<u64>> {
    let headers = Headers::read(memory, start)?;
    let (place, size) = headers.unwind?;
    let place = place.wrapping_add(headers.bias);
    let mut table = vec![0; usize::try_from(size.min(LARGEST_UNWIND)).ok()?];
    memory.read(place, &mut table).ok()?;
    // Version 1; the frames' address by its distance, the count as it is, pairs of distances from the table.
    if !table.starts_with(&[1, 0x1b, 0x03, 0x3b]) {
        return None;
    }
    let count = usize::try_from(int(&table, 8)?).ok()?;
    let mut starts: Vec<u64> = table
        .get(12..)?
        .chunks_exact(8)
        .take(count)
        .filter_map(|pair| Some(place.wrapping_add_signed((int(pair, 0)? as i32).into())))
        .collect();
    starts.sort_unstable();
    Some(starts)
}

impl Symbols {
    /// The binary whose first page is mapped at `start`; `None` when it is no 64-bit little-endian ELF, or has no
    /// dynamic symbols.
    pub fn of_binary(memory: &impl Memory, start: u64) -> Option<Symbols> {
        let headers = Headers::read(memory, start)?;
        let (bias, (dynamic, size)) = (headers.bias, headers.dynamic?);
        let mut entries = vec![0; usize::try_from(size.min(64 * 1024)).ok()?];
        memory.read(bias.wrapping_add(dynamic), &mut entries).ok()?;
        let (mut symbols, mut strings, mut gnu_hash, mut hash) = (None, None, None, None);
        for entry in entries.chunks_exact(16) {
            let value = word(entry, 8)?;
            // glibc writes the addresses as they are in memory, musl leaves them as they are in the file.
            let address = if value < bias {
                value.wrapping_add(bias)
            } else {
                value
            };
            match word(entry, 0)? {
                DT_NULL => break,
                DT_SYMTAB => symbols = Some(address),
                DT_STRTAB => strings = Some(address),
                DT_GNU_HASH => gnu_hash = Some(address),
                DT_HASH => hash = Some(address),
                _ => {}
            }
        }
        Some(Symbols {
            bias,
            symbols: symbols?,
            strings: strings?,
            gnu_hash,
            hash,
        })
    }

    /// The address of a defined symbol.
    pub fn find(&self, memory: &impl Memory, name: &str) -> Option<u64> {
        if let Some(table) = self.gnu_hash {
            return self.find_gnu(memory, table, name);
        }
        // The System V table says how many symbols there are.
        let count = u64::from(self.read_int(memory, self.hash?.checked_add(4)?)?);
        (1..count.min(LONGEST_CHAIN)).find_map(|index| self.matches(memory, index, name))
    }

    fn find_gnu(&self, memory: &impl Memory, table: u64, name: &str) -> Option<u64> {
        let mut head = [0; 16];
        memory.read(table, &mut head).ok()?;
        let (buckets, first) = (u64::from(int(&head, 0)?), u64::from(int(&head, 4)?));
        let bloom_words = u64::from(int(&head, 8)?);
        if buckets == 0 || bloom_words > 1 << 24 || buckets > 1 << 28 {
            return None;
        }
        let hash = name.bytes().fold(5381u32, |hash, byte| {
            hash.wrapping_mul(33).wrapping_add(u32::from(byte))
        });
        let bucket_table = table.checked_add(16 + bloom_words * 8)?;
        let bucket = bucket_table.checked_add(4 * (u64::from(hash) % buckets))?;
        let chains = bucket_table.checked_add(4 * buckets)?;
        let start = u64::from(self.read_int(memory, bucket)?);
        for index in start..start + LONGEST_CHAIN {
            let slot = index.checked_sub(first)?;
            let value = self.read_int(memory, chains.checked_add(4 * slot)?)?;
            if value | 1 == hash | 1
                && let Some(found) = self.matches(memory, index, name)
            {
                return Some(found);
            }
            if value & 1 == 1 {
                return None;
            }
        }
        None
    }

    fn read_int(&self, memory: &impl Memory, address: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        memory.read(address, &mut bytes).ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    /// The address of symbol `index` if it is called `name` and defined here.
    fn matches(&self, memory: &impl Memory, index: u64, name: &str) -> Option<u64> {
        let mut symbol = [0; 24];
        let address = self.symbols.checked_add(index.checked_mul(24)?)?;
        memory.read(address, &mut symbol).ok()?;
        let (name_at, section, value) = (int(&symbol, 0)?, half(&symbol, 6)?, word(&symbol, 8)?);
        if section == 0 {
            return None;
        }
        let text = read_c_string(
            memory,
            self.strings.checked_add(u64::from(name_at))?,
            name.len() + 2,
        )?;
        (text == name).then(|| self.bias.wrapping_add(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::{Range, Unreadable};

    /// Every address holds random bytes, behind a valid ELF header.
    struct Noise(std::cell::RefCell<rand::rngs::StdRng>);

    impl Memory for Noise {
        fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
            use rand::Rng;
            self.0.borrow_mut().fill_bytes(into);
            if address == 4096 && into.len() >= 64 {
                into[..6].copy_from_slice(b"\x7fELF\x02\x01");
                into[32..40].copy_from_slice(&64u64.to_le_bytes());
                into[54..58].copy_from_slice(&[56, 0, 8, 0]);
            } else if into.len() == 56 * 8 {
                into[..4].copy_from_slice(&PT_LOAD.to_le_bytes());
                into[56..60].copy_from_slice(&PT_DYNAMIC.to_le_bytes());
            }
            Ok(())
        }

        fn read_ranges(&self, _: &[Range], _: &mut [u8]) -> Result<usize, Unreadable> {
            Ok(0)
        }
    }

    #[test]
    fn nonsense_gives_no_symbols_and_no_panic() {
        use rand::SeedableRng;
        for seed in 0..200 {
            let noise = Noise(std::cell::RefCell::new(rand::rngs::StdRng::seed_from_u64(
                seed,
            )));
            let _ = (function_starts(&noise, 4096), data_end(&noise, 4096));
            if let Some(symbols) = Symbols::of_binary(&noise, 4096) {
                assert_eq!(symbols.find(&noise, "_PyRuntime"), None);
            }
        }
    }
}
