//! Opcodes of CPython 3.14: as `dis` of that version gives them (`_inline_cache_entries`, `stack_effect`, `hasjrel`,
//! `deoptmap`), with the two corrections that `opcodes` explains.
//! The tables are written by `tools/layouts/generate.py`.

use super::{CallKind, Callable, Effect, Flow, Instrumented, Op, Opcodes, op};

/// The opcodes.
pub const OPCODES: Opcodes = Opcodes {
    base: &BASE,
    ops: &OPS,
    callable: Callable::BelowSelfOrNull,
    unpacked: [4, 4],
    jump_unit: 1,
    instrumented: Some(Instrumented {
        line: 254,
        instruction: 238,
    }),
};

/// Specialised and instrumented opcodes to their base; 0 for unknown ones.
#[rustfmt::skip]
static BASE: [u8; 256] = [
    0, 1, 2, 44, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    16, 0, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
    48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
    64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79,
    80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95,
    96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111,
    112, 113, 114, 115, 116, 117, 118, 119, 120, 0, 0, 0, 0, 0, 0, 0,
    128, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 52,
    52, 52, 52, 52, 52, 52, 52, 55, 55, 55, 52, 52, 52, 52, 52, 52,
    52, 52, 52, 52, 52, 52, 56, 56, 56, 57, 57, 70, 70, 70, 70, 75,
    75, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 82, 82,
    92, 92, 96, 96, 128, 106, 110, 110, 110, 38, 38, 39, 39, 39, 39, 39,
    39, 119, 119, 119, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 30, 10, 70, 0, 77,
    28, 103, 100, 101, 102, 128, 35, 120, 68, 96, 52, 55, 4, 75, 0, 0,
];

/// Number, inline caches, effect on the stack, the same when it jumps, where it goes on, how it calls.
#[rustfmt::skip]
static OPS: [Op; 119] = [
    op(1, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // BINARY_SLICE
    op(2, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BUILD_TEMPLATE
    op(4, 0, Effect::Fixed(-3), Effect::Fixed(-3), Flow::Next, CallKind::Unpacked), // CALL_FUNCTION_EX
    op(5, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // CHECK_EG_MATCH
    op(6, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // CHECK_EXC_MATCH
    op(7, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // CLEANUP_THROW
    op(8, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // DELETE_SUBSCR
    op(9, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // END_FOR
    op(10, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // END_SEND
    op(11, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // EXIT_INIT_CHECK
    op(12, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // FORMAT_SIMPLE
    op(13, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // FORMAT_WITH_SPEC
    op(14, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_AITER
    op(15, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // GET_ANEXT
    op(16, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_ITER
    op(18, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // GET_LEN
    op(19, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_YIELD_FROM_ITER
    op(20, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Stop, CallKind::None), // INTERPRETER_EXIT
    op(21, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_BUILD_CLASS
    op(22, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_LOCALS
    op(23, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // MAKE_FUNCTION
    op(24, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // MATCH_KEYS
    op(25, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // MATCH_MAPPING
    op(26, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // MATCH_SEQUENCE
    op(27, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // NOP
    op(28, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // NOT_TAKEN
    op(29, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // POP_EXCEPT
    op(30, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // POP_ITER
    op(31, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // POP_TOP
    op(32, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // PUSH_EXC_INFO
    op(33, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // PUSH_NULL
    op(34, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // RETURN_GENERATOR
    op(35, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Stop, CallKind::None), // RETURN_VALUE
    op(36, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // SETUP_ANNOTATIONS
    op(37, 0, Effect::Fixed(-4), Effect::Fixed(-4), Flow::Next, CallKind::None), // STORE_SLICE
    op(38, 1, Effect::Fixed(-3), Effect::Fixed(-3), Flow::Next, CallKind::None), // STORE_SUBSCR
    op(39, 3, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // TO_BOOL
    op(40, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_INVERT
    op(41, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_NEGATIVE
    op(42, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_NOT
    op(43, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // WITH_EXCEPT_START
    op(44, 5, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_OP
    op(45, 0, Effect::LowBit(-1, -1), Effect::LowBit(-1, -1), Flow::Next, CallKind::None), // BUILD_INTERPOLATION
    op(46, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_LIST
    op(47, 0, Effect::PerArgument(1, -2), Effect::PerArgument(1, -2), Flow::Next, CallKind::None), // BUILD_MAP
    op(48, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_SET
    op(49, 0, Effect::BuildSlice, Effect::BuildSlice, Flow::Next, CallKind::None), // BUILD_SLICE
    op(50, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_STRING
    op(51, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_TUPLE
    op(52, 3, Effect::PerArgument(-1, -1), Effect::PerArgument(-1, -1), Flow::Next, CallKind::Positional), // CALL
    op(53, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // CALL_INTRINSIC_1
    op(54, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // CALL_INTRINSIC_2
    op(55, 3, Effect::PerArgument(-2, -1), Effect::PerArgument(-2, -1), Flow::Next, CallKind::Keywords), // CALL_KW
    op(56, 1, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // COMPARE_OP
    op(57, 1, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // CONTAINS_OP
    op(58, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // CONVERT_VALUE
    op(59, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // COPY
    op(60, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // COPY_FREE_VARS
    op(61, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // DELETE_ATTR
    op(62, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_DEREF
    op(63, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_FAST
    op(64, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_GLOBAL
    op(65, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_NAME
    op(66, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // DICT_MERGE
    op(67, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // DICT_UPDATE
    op(68, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Branch, CallKind::None), // END_ASYNC_FOR
    op(69, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Extend, CallKind::None), // EXTENDED_ARG
    op(70, 1, Effect::Fixed(1), Effect::Fixed(1), Flow::Branch, CallKind::None), // FOR_ITER
    op(71, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_AWAITABLE
    op(72, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // IMPORT_FROM
    op(73, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // IMPORT_NAME
    op(74, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // IS_OP
    op(75, 1, Effect::Fixed(0), Effect::Fixed(0), Flow::JumpBack, CallKind::None), // JUMP_BACKWARD
    op(76, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::JumpBack, CallKind::None), // JUMP_BACKWARD_NO_INTERRUPT
    op(77, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Jump, CallKind::None), // JUMP_FORWARD
    op(78, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // LIST_APPEND
    op(79, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // LIST_EXTEND
    op(80, 9, Effect::LowBit(0, 1), Effect::LowBit(0, 1), Flow::Next, CallKind::None), // LOAD_ATTR
    op(81, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_COMMON_CONSTANT
    op(82, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_CONST
    op(83, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_DEREF
    op(84, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_FAST
    op(85, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_FAST_AND_CLEAR
    op(86, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_FAST_BORROW
    op(87, 0, Effect::Fixed(2), Effect::Fixed(2), Flow::Next, CallKind::None), // LOAD_FAST_BORROW_LOAD_FAST_BORROW
    op(88, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_FAST_CHECK
    op(89, 0, Effect::Fixed(2), Effect::Fixed(2), Flow::Next, CallKind::None), // LOAD_FAST_LOAD_FAST
    op(90, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // LOAD_FROM_DICT_OR_DEREF
    op(91, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // LOAD_FROM_DICT_OR_GLOBALS
    op(92, 4, Effect::LowBit(1, 1), Effect::LowBit(1, 1), Flow::Next, CallKind::None), // LOAD_GLOBAL
    op(93, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_NAME
    op(94, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_SMALL_INT
    op(95, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_SPECIAL
    op(96, 1, Effect::LowBit(-2, 1), Effect::LowBit(-2, 1), Flow::Next, CallKind::None), // LOAD_SUPER_ATTR
    op(97, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // MAKE_CELL
    op(98, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // MAP_ADD
    op(99, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // MATCH_CLASS
    op(100, 1, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_IF_FALSE
    op(101, 1, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_IF_NONE
    op(102, 1, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_IF_NOT_NONE
    op(103, 1, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_IF_TRUE
    op(104, 0, Effect::PerArgument(0, -1), Effect::PerArgument(0, -1), Flow::Stop, CallKind::None), // RAISE_VARARGS
    op(105, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Stop, CallKind::None), // RERAISE
    op(106, 1, Effect::Fixed(0), Effect::Fixed(0), Flow::Branch, CallKind::None), // SEND
    op(107, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // SET_ADD
    op(108, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // SET_FUNCTION_ATTRIBUTE
    op(109, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // SET_UPDATE
    op(110, 4, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // STORE_ATTR
    op(111, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_DEREF
    op(112, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_FAST
    op(113, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // STORE_FAST_LOAD_FAST
    op(114, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // STORE_FAST_STORE_FAST
    op(115, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_GLOBAL
    op(116, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_NAME
    op(117, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // SWAP
    op(118, 0, Effect::UnpackEx, Effect::UnpackEx, Flow::Next, CallKind::None), // UNPACK_EX
    op(119, 1, Effect::PerArgument(-1, 1), Effect::PerArgument(-1, 1), Flow::Next, CallKind::None), // UNPACK_SEQUENCE
    op(120, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // YIELD_VALUE
    op(128, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // RESUME
];
