//! Opcodes of CPython 3.12: as `dis` of that version gives them (`_inline_cache_entries`, `stack_effect`, `hasjrel`,
//! `deoptmap`), with the two corrections that `opcodes` explains.
//! The tables are written by `tools/layouts/generate.py`.

use super::{CallKind, Callable, Effect, Flow, Instrumented, Op, Opcodes, op};

/// The opcodes.
pub const OPCODES: Opcodes = Opcodes {
    base: &BASE,
    ops: &OPS,
    callable: Callable::OrMethodBelow,
    unpacked: [2, 3],
    jump_unit: 1,
    instrumented: Some(Instrumented {
        line: 254,
        instruction: 253,
    }),
};

/// Specialised and instrumented opcodes to their base; 0 for unknown ones.
#[rustfmt::skip]
static BASE: [u8; 256] = [
    0, 1, 2, 3, 4, 5, 122, 122, 122, 9, 122, 11, 12, 122, 122, 15,
    122, 0, 122, 25, 25, 25, 25, 171, 171, 25, 26, 27, 171, 171, 30, 31,
    32, 33, 171, 35, 36, 37, 171, 171, 171, 171, 171, 171, 171, 171, 171, 171,
    171, 49, 50, 51, 52, 53, 54, 55, 171, 107, 107, 107, 60, 61, 93, 93,
    93, 93, 141, 141, 68, 69, 106, 71, 106, 106, 74, 75, 106, 106, 106, 106,
    106, 106, 106, 83, 100, 85, 124, 87, 124, 89, 90, 91, 92, 93, 94, 95,
    96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 116,
    116, 95, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127,
    128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 142, 143,
    144, 145, 146, 147, 95, 149, 150, 151, 152, 95, 125, 155, 156, 157, 125, 60,
    60, 92, 162, 163, 164, 165, 92, 92, 123, 0, 0, 171, 172, 173, 174, 175,
    176, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 141, 129, 128,
    151, 171, 83, 150, 142, 110, 140, 121, 93, 114, 115, 4, 5, 0, 0, 0,
];

/// Number, inline caches, effect on the stack, the same when it jumps, where it goes on, how it calls.
#[rustfmt::skip]
static OPS: [Op; 109] = [
    op(1, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // POP_TOP
    op(2, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // PUSH_NULL
    op(3, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Stop, CallKind::None), // INTERPRETER_EXIT
    op(4, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // END_FOR
    op(5, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // END_SEND
    op(9, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // NOP
    op(11, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_NEGATIVE
    op(12, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_NOT
    op(15, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_INVERT
    op(25, 1, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_SUBSCR
    op(26, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // BINARY_SLICE
    op(27, 0, Effect::Fixed(-4), Effect::Fixed(-4), Flow::Next, CallKind::None), // STORE_SLICE
    op(30, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // GET_LEN
    op(31, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // MATCH_MAPPING
    op(32, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // MATCH_SEQUENCE
    op(33, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // MATCH_KEYS
    op(35, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // PUSH_EXC_INFO
    op(36, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // CHECK_EXC_MATCH
    op(37, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // CHECK_EG_MATCH
    op(49, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // WITH_EXCEPT_START
    op(50, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_AITER
    op(51, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // GET_ANEXT
    op(52, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // BEFORE_ASYNC_WITH
    op(53, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // BEFORE_WITH
    op(54, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // END_ASYNC_FOR
    op(55, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // CLEANUP_THROW
    op(60, 1, Effect::Fixed(-3), Effect::Fixed(-3), Flow::Next, CallKind::None), // STORE_SUBSCR
    op(61, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // DELETE_SUBSCR
    op(68, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_ITER
    op(69, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_YIELD_FROM_ITER
    op(71, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_BUILD_CLASS
    op(74, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_ASSERTION_ERROR
    op(75, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // RETURN_GENERATOR
    op(83, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Stop, CallKind::None), // RETURN_VALUE
    op(85, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // SETUP_ANNOTATIONS
    op(87, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_LOCALS
    op(89, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // POP_EXCEPT
    op(90, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_NAME
    op(91, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_NAME
    op(92, 1, Effect::PerArgument(-1, 1), Effect::PerArgument(-1, 1), Flow::Next, CallKind::None), // UNPACK_SEQUENCE
    op(93, 1, Effect::Fixed(1), Effect::Fixed(1), Flow::Branch, CallKind::None), // FOR_ITER
    op(94, 0, Effect::UnpackEx, Effect::UnpackEx, Flow::Next, CallKind::None), // UNPACK_EX
    op(95, 4, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // STORE_ATTR
    op(96, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // DELETE_ATTR
    op(97, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_GLOBAL
    op(98, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_GLOBAL
    op(99, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // SWAP
    op(100, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_CONST
    op(101, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_NAME
    op(102, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_TUPLE
    op(103, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_LIST
    op(104, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_SET
    op(105, 0, Effect::PerArgument(1, -2), Effect::PerArgument(1, -2), Flow::Next, CallKind::None), // BUILD_MAP
    op(106, 9, Effect::LowBit(0, 1), Effect::LowBit(0, 1), Flow::Next, CallKind::None), // LOAD_ATTR
    op(107, 1, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // COMPARE_OP
    op(108, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // IMPORT_NAME
    op(109, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // IMPORT_FROM
    op(110, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Jump, CallKind::None), // JUMP_FORWARD
    op(114, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_IF_FALSE
    op(115, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_IF_TRUE
    op(116, 4, Effect::LowBit(1, 1), Effect::LowBit(1, 1), Flow::Next, CallKind::None), // LOAD_GLOBAL
    op(117, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // IS_OP
    op(118, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // CONTAINS_OP
    op(119, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Stop, CallKind::None), // RERAISE
    op(120, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // COPY
    op(121, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Stop, CallKind::None), // RETURN_CONST
    op(122, 1, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_OP
    op(123, 1, Effect::Fixed(0), Effect::Fixed(0), Flow::Branch, CallKind::None), // SEND
    op(124, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_FAST
    op(125, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_FAST
    op(126, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_FAST
    op(127, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_FAST_CHECK
    op(128, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_IF_NOT_NONE
    op(129, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_IF_NONE
    op(130, 0, Effect::PerArgument(0, -1), Effect::PerArgument(0, -1), Flow::Stop, CallKind::None), // RAISE_VARARGS
    op(131, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_AWAITABLE
    op(132, 0, Effect::MakeFunction, Effect::MakeFunction, Flow::Next, CallKind::None), // MAKE_FUNCTION
    op(133, 0, Effect::BuildSlice, Effect::BuildSlice, Flow::Next, CallKind::None), // BUILD_SLICE
    op(134, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::JumpBack, CallKind::None), // JUMP_BACKWARD_NO_INTERRUPT
    op(135, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // MAKE_CELL
    op(136, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_CLOSURE
    op(137, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_DEREF
    op(138, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_DEREF
    op(139, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_DEREF
    op(140, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::JumpBack, CallKind::None), // JUMP_BACKWARD
    op(141, 1, Effect::LowBit(-2, 1), Effect::LowBit(-2, 1), Flow::Next, CallKind::None), // LOAD_SUPER_ATTR
    op(142, 0, Effect::LowBit(-2, -1), Effect::LowBit(-2, -1), Flow::Next, CallKind::Unpacked), // CALL_FUNCTION_EX
    op(143, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_FAST_AND_CLEAR
    op(144, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Extend, CallKind::None), // EXTENDED_ARG
    op(145, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // LIST_APPEND
    op(146, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // SET_ADD
    op(147, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // MAP_ADD
    op(149, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // COPY_FREE_VARS
    op(150, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // YIELD_VALUE
    op(151, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // RESUME
    op(152, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // MATCH_CLASS
    op(155, 0, Effect::FormatValue, Effect::FormatValue, Flow::Next, CallKind::None), // FORMAT_VALUE
    op(156, 0, Effect::PerArgument(0, -1), Effect::PerArgument(0, -1), Flow::Next, CallKind::None), // BUILD_CONST_KEY_MAP
    op(157, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_STRING
    op(162, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // LIST_EXTEND
    op(163, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // SET_UPDATE
    op(164, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // DICT_MERGE
    op(165, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // DICT_UPDATE
    op(171, 3, Effect::PerArgument(-1, -1), Effect::PerArgument(-1, -1), Flow::Next, CallKind::Positional), // CALL
    op(172, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // KW_NAMES
    op(173, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // CALL_INTRINSIC_1
    op(174, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // CALL_INTRINSIC_2
    op(175, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // LOAD_FROM_DICT_OR_GLOBALS
    op(176, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // LOAD_FROM_DICT_OR_DEREF
];
