//! The eBPF program that runs in a thread's own timer interrupt and copies what [`Plan`] says into a ring, put together by
//! hand: no compiler and no BTF is needed.
//!
//! It runs between two instructions of the thread that it copies from, so the copy is of one instant. Loops have bounds that
//! the verifier sees (Linux 5.3), the ring and `bpf_probe_read_user` are of 5.8. Instructions: linux/bpf.h and
//! Documentation/bpf/standardization/instruction-set.rst; calls: `enum bpf_func_id`.

/// Ranges of one plan at most.
pub const MOST_RANGES: usize = 48;

/// Bytes that are copied of all of them together at most: one less than a power of two.
pub const MOST_BYTES: u32 = 0x7fff;

/// Frames that are followed at most.
const MOST_STEPS: i32 = 160;

/// Bytes that each of them takes in a record, with its address before the copy.
pub const BLOCK: u32 = 512;

/// Bytes that are copied of it.
pub const BLOCK_BYTES: u32 = BLOCK - 8;

/// A range of a thread's memory, and where its copy goes in a record after the head.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// Where.
    pub address: u64,
    /// Bytes, up to [`MOST_BYTES`].
    pub length: u32,
    /// Of the copy, from the end of the head.
    pub offset: u32,
}

/// What is to be copied of a thread: the value of the map of plans.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Which room the thread has to put a record together.
    pub room: u32,
    /// How many of `parts` there are.
    pub count: u32,
    /// Comes back with each record.
    pub version: u64,
    /// Bytes of all parts.
    pub bytes: u32,
    /// Whether frames outside of `low..high` are copied, found from the innermost one on.
    pub follows: u32,
    /// Where the address of the innermost frame is, or of what has it at `indirect`; 0 when nothing is to be found.
    pub innermost: u64,
    /// [`DIRECT`], or the offset of the innermost frame in what `innermost` points to, which is copied like a frame.
    pub indirect: u64,
    /// From here on frames are in one of the parts.
    pub low: u64,
    /// Up to here.
    pub high: u64,
    /// Offset of the next outer frame in a frame: less than 128.
    pub previous: u64,
    /// Bytes that every frame has: less than 256.
    pub frame: u64,
    /// The parts.
    pub parts: [Part; MOST_RANGES],
}

/// No [`Plan::indirect`].
pub const DIRECT: u64 = u64::MAX;

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            room: 0,
            count: 0,
            version: 0,
            bytes: 0,
            follows: 0,
            innermost: 0,
            indirect: DIRECT,
            low: 0,
            high: 0,
            previous: 0,
            frame: 0,
            parts: [Part::default(); MOST_RANGES],
        }
    }
}

/// Where things are in a [`Plan`].
mod plan {
    use super::Plan;
    use std::mem::offset_of;
    pub const ROOM: i16 = offset_of!(Plan, room) as i16;
    pub const COUNT: i16 = offset_of!(Plan, count) as i16;
    pub const VERSION: i16 = offset_of!(Plan, version) as i16;
    pub const BYTES: i16 = offset_of!(Plan, bytes) as i16;
    pub const FOLLOWS: i16 = offset_of!(Plan, follows) as i16;
    pub const INNERMOST: i16 = offset_of!(Plan, innermost) as i16;
    pub const INDIRECT: i16 = offset_of!(Plan, indirect) as i16;
    pub const LOW: i16 = offset_of!(Plan, low) as i16;
    pub const HIGH: i16 = offset_of!(Plan, high) as i16;
    pub const PREVIOUS: i16 = offset_of!(Plan, previous) as i16;
    pub const FRAME: i16 = offset_of!(Plan, frame) as i16;
    pub const PARTS: i16 = offset_of!(Plan, parts) as i16;
}

/// Where things are in a record: its head, followed by the copies.
pub mod record {
    /// How many interrupts of the thread there were, this one included: what is missing was lost.
    pub const SEQUENCE: usize = 0;
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub const AT_NS: usize = 8;
    /// The thread, as the kernel counts them outside of all namespaces.
    pub const TID: usize = 16;
    /// [`super::Plan::version`] at the beginning of the copy; 0 of a thread without a plan.
    pub const VERSION: usize = 24;
    /// The same at its end.
    pub const VERSION_AFTER: usize = 32;
    /// One bit for each part that could not be copied.
    pub const FAILED: usize = 40;
    /// Bytes after the head, those of frames that were followed included.
    pub const BYTES: usize = 48;
    /// Bytes of the head.
    pub const HEAD: usize = 56;
}

/// Bytes of a room: a record whose parts are where the verifier must believe that they can be.
pub const ROOM: u32 = record::HEAD as u32 + 2 * (MOST_BYTES + 1);

/// `struct bpf_insn`: operation, registers (destination in the low half), offset, immediate.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register: `R0` has results, `R1` to `R5` are arguments that a call destroys, `R6` to `R9` stay, `R10` is the frame.
type Register = u8;
const R0: Register = 0;
const R1: Register = 1;
const R2: Register = 2;
const R3: Register = 3;
const R4: Register = 4;
const R5: Register = 5;
const R6: Register = 6;
const R7: Register = 7;
const R8: Register = 8;
const R9: Register = 9;
const R10: Register = 10;

/// Functions of the kernel (`enum bpf_func_id`).
const MAP_LOOKUP_ELEM: i32 = 1;
const KTIME_GET_NS: i32 = 5;
const GET_CURRENT_PID_TGID: i32 = 14;
const PROBE_READ_USER: i32 = 112;
const RINGBUF_OUTPUT: i32 = 130;

/// `BPF_RB_NO_WAKEUP`: nobody waits for a record.
const NO_WAKEUP: i32 = 1;

/// Places on the program's stack, below `R10`.
const KEY: i16 = -4;
const ROOM_KEY: i16 = -8;
const POINTER: i16 = -16;
const LINK: i16 = -24;
/// The record of a thread without a plan.
const UNKNOWN: i16 = -88;

/// A place to jump to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    NextPart,
    PartDone,
    Copied,
    NextFrame,
    Outside,
    Whole,
    Output,
    Stranger,
    End,
}

/// Instructions, with jumps to be filled in.
#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

impl Assembler {
    fn put(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        self.code.push(Instruction {
            code,
            registers: to | (from << 4),
            offset,
            immediate,
        });
    }

    /// `to = from`
    fn mov(&mut self, to: Register, from: Register) {
        self.put(0xbf, to, from, 0, 0);
    }

    /// `to = value`
    fn set(&mut self, to: Register, value: i32) {
        self.put(0xb7, to, 0, 0, value);
    }

    /// `to += value`
    fn add(&mut self, to: Register, value: i32) {
        self.put(0x07, to, 0, 0, value);
    }

    /// `to += from`
    fn add_register(&mut self, to: Register, from: Register) {
        self.put(0x0f, to, from, 0, 0);
    }

    /// `to &= value`
    fn and(&mut self, to: Register, value: i32) {
        self.put(0x57, to, 0, 0, value);
    }

    /// `to |= from`
    fn or(&mut self, to: Register, from: Register) {
        self.put(0x4f, to, from, 0, 0);
    }

    /// `to <<= value`
    fn shift(&mut self, to: Register, value: i32) {
        self.put(0x67, to, 0, 0, value);
    }

    /// `to <<= from`
    fn shift_by(&mut self, to: Register, from: Register) {
        self.put(0x6f, to, from, 0, 0);
    }

    /// `to = *(u64 *)(from + offset)`
    fn load(&mut self, to: Register, from: Register, offset: i16) {
        self.put(0x79, to, from, offset, 0);
    }

    /// `to = *(u32 *)(from + offset)`
    fn load_u32(&mut self, to: Register, from: Register, offset: i16) {
        self.put(0x61, to, from, offset, 0);
    }

    /// `*(u64 *)(to + offset) = from`
    fn store(&mut self, to: Register, offset: i16, from: Register) {
        self.put(0x7b, to, from, offset, 0);
    }

    /// `*(u32 *)(to + offset) = from`
    fn store_u32(&mut self, to: Register, offset: i16, from: Register) {
        self.put(0x63, to, from, offset, 0);
    }

    /// `to =` the map with this descriptor (`BPF_PSEUDO_MAP_FD`), in two instructions.
    fn map(&mut self, to: Register, descriptor: i32) {
        self.put(0x18, to, 1, 0, descriptor);
        self.put(0, 0, 0, 0, 0);
    }

    fn call(&mut self, function: i32) {
        self.put(0x85, 0, 0, 0, function);
    }

    fn exit(&mut self) {
        self.put(0x95, 0, 0, 0, 0);
    }

    fn jump_with(&mut self, code: u8, a: Register, b: Register, value: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.put(code, a, b, 0, value);
    }

    fn jump(&mut self, label: Label) {
        self.jump_with(0x05, 0, 0, 0, label);
    }

    fn jump_if_equal(&mut self, a: Register, value: i32, label: Label) {
        self.jump_with(0x15, a, 0, value, label);
    }

    fn jump_unless_equal(&mut self, a: Register, value: i32, label: Label) {
        self.jump_with(0x55, a, 0, value, label);
    }

    /// Unsigned, as all comparisons here.
    fn jump_if_at_least(&mut self, a: Register, value: i32, label: Label) {
        self.jump_with(0x35, a, 0, value, label);
    }

    fn jump_if_at_least_register(&mut self, a: Register, b: Register, label: Label) {
        self.jump_with(0x3d, a, b, 0, label);
    }

    fn jump_if_below_register(&mut self, a: Register, b: Register, label: Label) {
        self.jump_with(0xad, a, b, 0, label);
    }

    fn label(&mut self, label: Label) {
        self.labels.push((label, self.code.len()));
    }

    /// The program; jumps count from the instruction after them.
    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in &self.jumps {
            let target = self.labels.iter().find(|(known, _)| known == label);
            if let (Some(jump), Some((_, target))) = (self.code.get_mut(*at), target) {
                jump.offset = (*target as i64 - *at as i64 - 1) as i16;
            }
        }
        self.code
    }
}

/// The program. `plans`: a hash map from a thread's id to its [`Plan`]; `rooms`: an array of [`ROOM`] bytes; `ring`: a ring
/// buffer.
pub fn assemble(plans: i32, rooms: i32, ring: i32) -> Vec<Instruction> {
    let mut a = Assembler::default();
    find(&mut a, plans, rooms);
    copy_parts(&mut a);
    follow_frames(&mut a);
    output(&mut a, ring);
    a.finish()
}

/// Who was interrupted? Afterwards `R8` is its plan and `R9` its room.
fn find(a: &mut Assembler, plans: i32, rooms: i32) {
    a.call(KTIME_GET_NS); // r0 = the time
    a.mov(R7, R0); // r7 = the time
    a.call(GET_CURRENT_PID_TGID); // r0 = process << 32 | thread
    a.store_u32(R10, KEY, R0); // key = thread
    a.map(R1, plans); // r1 = plans
    a.mov(R2, R10); // r2 = frame
    a.add(R2, i32::from(KEY)); // r2 = &key
    a.call(MAP_LOOKUP_ELEM); // r0 = its plan, or 0
    a.jump_if_equal(R0, 0, Label::Stranger); // nobody that we know
    a.mov(R8, R0); // r8 = plan
    a.load_u32(R1, R8, plan::ROOM); // r1 = plan.room
    a.store_u32(R10, ROOM_KEY, R1); // room key = plan.room
    a.map(R1, rooms); // r1 = rooms
    a.mov(R2, R10); // r2 = frame
    a.add(R2, i32::from(ROOM_KEY)); // r2 = &room key
    a.call(MAP_LOOKUP_ELEM); // r0 = its room, or 0
    a.jump_if_equal(R0, 0, Label::End); // there is none: never, but the verifier wants to be sure
    a.mov(R9, R0); // r9 = room
    a.load(R1, R9, record::SEQUENCE as i16); // r1 = how many there were
    a.add(R1, 1); // one more
    a.store(R9, record::SEQUENCE as i16, R1); // head.sequence
    a.store(R9, record::AT_NS as i16, R7); // head.at = the time
    a.load_u32(R1, R10, KEY); // r1 = thread
    a.store(R9, record::TID as i16, R1); // head.tid
    a.load(R1, R8, plan::VERSION); // r1 = plan.version
    a.store(R9, record::VERSION as i16, R1); // head.version
    a.set(R1, 0); // r1 = 0
    a.store(R9, record::FAILED as i16, R1); // head.failed = 0
    a.load_u32(R1, R8, plan::BYTES); // r1 = plan.bytes
    a.and(R1, MOST_BYTES as i32); // no more than there is room for
    a.store(R9, record::BYTES as i16, R1); // head.bytes
}

/// One call of `bpf_probe_read_user` for each part.
fn copy_parts(a: &mut Assembler) {
    a.set(R7, 0); // r7 = which part
    a.label(Label::NextPart);
    a.jump_if_at_least(R7, MOST_RANGES as i32, Label::Copied); // the bound that the verifier sees
    a.load_u32(R1, R8, plan::COUNT); // r1 = plan.count
    a.jump_if_at_least_register(R7, R1, Label::Copied); // all parts are copied
    a.mov(R5, R7); // r5 = which part
    a.shift(R5, 4); // r5 = its place: 16 bytes each
    a.add_register(R5, R8); // r5 = plan + place
    a.load_u32(R1, R5, plan::PARTS + 12); // r1 = part.offset
    a.and(R1, MOST_BYTES as i32); // inside of the room
    a.add_register(R1, R9); // r1 = room + offset
    a.add(R1, record::HEAD as i32); // r1 = where the copy goes
    a.load_u32(R2, R5, plan::PARTS + 8); // r2 = part.length
    a.and(R2, MOST_BYTES as i32); // inside of the room
    a.load(R3, R5, plan::PARTS); // r3 = part.address
    a.call(PROBE_READ_USER); // r0 = 0 when it is copied; all zeroes otherwise
    a.jump_if_equal(R0, 0, Label::PartDone); // copied
    a.set(R1, 1); // r1 = 1
    a.shift_by(R1, R7); // r1 = the part's bit
    a.load(R2, R9, record::FAILED as i16); // r2 = head.failed
    a.or(R2, R1); // with this one
    a.store(R9, record::FAILED as i16, R2); // head.failed
    a.label(Label::PartDone);
    a.add(R7, 1); // the next part
    a.jump(Label::NextPart);
    a.label(Label::Copied);
}

/// What has the address of the innermost frame, where the thread's state has not, then from that frame outward those outside of
/// the parts: each is copied after its address.
fn follow_frames(a: &mut Assembler) {
    a.load(R3, R8, plan::INNERMOST); // r3 = where the first address is
    a.jump_if_equal(R3, 0, Label::Output); // nothing is to be found
    a.set(R7, 0); // r7 = steps so far
    a.mov(R1, R10); // r1 = frame of the program
    a.add(R1, i32::from(POINTER)); // r1 = &pointer
    a.set(R2, 8); // r2 = its size
    a.call(PROBE_READ_USER); // pointer = it
    a.jump_unless_equal(R0, 0, Label::Output); // not there
    a.load(R6, R10, POINTER); // r6 = the innermost frame, or what knows it
    a.load(R1, R8, plan::PREVIOUS); // r1 = plan.previous
    a.store(R10, LINK, R1); // link = where a frame has the next outer one
    a.load(R1, R8, plan::INDIRECT); // r1 = plan.indirect
    a.jump_if_equal(R1, -1, Label::NextFrame); // r6 is the frame
    a.store(R10, LINK, R1); // link = where it has the innermost frame
    a.jump_unless_equal(R6, 0, Label::Outside); // copied like a frame
    a.label(Label::NextFrame);
    a.load_u32(R1, R8, plan::FOLLOWS); // r1 = plan.follows
    a.jump_if_equal(R1, 0, Label::Output); // all frames are in the parts
    a.jump_if_at_least(R7, MOST_STEPS, Label::Output); // the bound that the verifier sees
    a.add(R7, 1); // one more step
    a.jump_if_equal(R6, 0, Label::Output); // that was the outermost one
    a.load(R1, R8, plan::LOW); // r1 = plan.low
    a.jump_if_below_register(R6, R1, Label::Outside); // below the parts
    a.load(R1, R8, plan::HIGH); // r1 = plan.high
    a.jump_if_at_least_register(R6, R1, Label::Outside); // above them
    a.mov(R1, R10); // r1 = frame of the program
    a.add(R1, i32::from(POINTER)); // r1 = &pointer
    a.set(R2, 8); // r2 = its size
    a.load(R3, R8, plan::PREVIOUS); // r3 = plan.previous
    a.add_register(R3, R6); // r3 = where the next outer frame's address is
    a.call(PROBE_READ_USER); // pointer = it
    a.jump_unless_equal(R0, 0, Label::Output); // not there
    a.load(R6, R10, POINTER); // r6 = the next outer frame
    a.jump(Label::NextFrame);
    a.label(Label::Outside);
    a.load(R1, R9, record::BYTES as i16); // r1 = bytes so far
    a.jump_if_at_least(R1, (MOST_BYTES - BLOCK) as i32, Label::Output); // no room for another one
    a.add_register(R1, R9); // r1 = room + bytes
    a.add(R1, record::HEAD as i32); // r1 = where the block goes
    a.store(R1, 0, R6); // block.address = the frame
    a.add(R1, 8); // r1 = where its copy goes
    a.set(R2, BLOCK_BYTES as i32); // r2 = its size
    a.mov(R3, R6); // r3 = the frame
    a.call(PROBE_READ_USER); // copies it
    a.jump_if_equal(R0, 0, Label::Whole); // all of it
    a.load(R1, R9, record::BYTES as i16); // r1 = bytes so far
    a.and(R1, MOST_BYTES as i32); // for the verifier, which has forgotten
    a.add_register(R1, R9); // r1 = room + bytes
    a.add(R1, record::HEAD as i32 + 8); // r1 = where the copy goes
    a.load(R2, R8, plan::FRAME); // r2 = what every frame has
    a.and(R2, 0xff); // less than a block
    a.mov(R3, R6); // r3 = the frame
    a.call(PROBE_READ_USER); // what is before the end of a mapping
    a.jump_unless_equal(R0, 0, Label::Output); // no frame
    a.label(Label::Whole);
    a.load(R1, R9, record::BYTES as i16); // r1 = bytes so far
    a.and(R1, MOST_BYTES as i32); // for the verifier
    a.mov(R2, R1); // r2 = bytes so far
    a.add(R2, BLOCK as i32); // with this block
    a.store(R9, record::BYTES as i16, R2); // head.bytes
    a.load(R2, R10, LINK); // r2 = link
    a.and(R2, 0x7f); // inside of the block
    a.add_register(R1, R9); // r1 = room + bytes before
    a.add_register(R1, R2); // and the offset in the frame
    a.load(R6, R1, record::HEAD as i16 + 8); // r6 = the next outer frame
    a.load(R1, R8, plan::PREVIOUS); // r1 = plan.previous
    a.store(R10, LINK, R1); // link = where a frame has the next outer one
    a.jump(Label::NextFrame);
}

/// The record goes into the ring; if that is full, the next sequence number tells.
fn output(a: &mut Assembler, ring: i32) {
    a.label(Label::Output);
    a.load(R1, R8, plan::VERSION); // r1 = plan.version
    a.store(R9, record::VERSION_AFTER as i16, R1); // head.version after
    a.load(R3, R9, record::BYTES as i16); // r3 = bytes
    a.and(R3, MOST_BYTES as i32); // inside of the room
    a.add(R3, record::HEAD as i32); // with the head
    a.map(R1, ring); // r1 = ring
    a.mov(R2, R9); // r2 = the record
    a.set(R4, NO_WAKEUP); // nobody waits for it
    a.call(RINGBUF_OUTPUT); // into the ring
    a.jump(Label::End);
    a.label(Label::Stranger);
    a.set(R1, 0); // r1 = 0
    for word in 0..record::HEAD as i16 / 8 {
        a.store(R10, UNKNOWN + 8 * word, R1); // an empty head
    }
    a.store(R10, UNKNOWN + record::AT_NS as i16, R7); // head.at = the time
    a.load_u32(R1, R10, KEY); // r1 = thread
    a.store(R10, UNKNOWN + record::TID as i16, R1); // head.tid
    a.map(R1, ring); // r1 = ring
    a.mov(R2, R10); // r2 = frame of the program
    a.add(R2, i32::from(UNKNOWN)); // r2 = the head
    a.set(R3, record::HEAD as i32); // r3 = its size
    a.set(R4, NO_WAKEUP); // nobody waits for it
    a.call(RINGBUF_OUTPUT); // into the ring
    a.label(Label::End);
    a.set(R0, 0); // the event itself leaves no sample
    a.exit();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_laid_out_as_the_program_reads_it() {
        assert_eq!(size_of::<Instruction>(), 8);
        assert_eq!(size_of::<Part>(), 16);
        assert_eq!(plan::PARTS as usize + 16 * MOST_RANGES, size_of::<Plan>());
        assert!(record::HEAD <= -UNKNOWN as usize);
        let program = assemble(3, 4, 5);
        // Every jump stays inside, and the two halves of a map stay together.
        for (at, instruction) in program.iter().enumerate() {
            let jumps = instruction.code & 7 == 5 && !matches!(instruction.code, 0x85 | 0x95);
            if jumps {
                let target = at as i64 + 1 + i64::from(instruction.offset);
                assert!((0..program.len() as i64).contains(&target), "{at}");
                assert_ne!(instruction.offset, 0, "{at}");
            }
        }
        assert_eq!(program.last().map(|last| last.code), Some(0x95));
    }
}
