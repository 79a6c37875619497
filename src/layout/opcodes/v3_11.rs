//! Opcodes of CPython 3.11: as `dis` of that version gives them (`_inline_cache_entries`, `stack_effect`, `hasjrel`,
//! `deoptmap`), with the two corrections that `opcodes` explains.
//! The tables are written by `tools/layouts/generate.py`.

use super::{CallKind, Callable, Effect, Flow, Op, Opcodes, op};

/// The opcodes.
pub const OPCODES: Opcodes = Opcodes {
    base: &BASE,
    ops: &OPS,
    callable: Callable::OrMethodBelow,
    unpacked: [2, 3],
    jump_unit: 1,
    instrumented: None,
};

/// Specialised and instrumented opcodes to their base; 0 for unknown ones.
#[rustfmt::skip]
static BASE: [u8; 256] = [
    0, 1, 2, 122, 122, 122, 122, 122, 122, 9, 10, 11, 12, 122, 122, 15,
    122, 25, 25, 25, 25, 25, 171, 171, 171, 25, 107, 107, 107, 107, 30, 31,
    32, 33, 144, 35, 36, 37, 140, 106, 106, 106, 106, 106, 100, 124, 124, 116,
    116, 49, 50, 51, 52, 53, 54, 116, 160, 160, 160, 160, 60, 61, 160, 160,
    166, 166, 166, 166, 68, 69, 70, 71, 166, 166, 74, 75, 166, 166, 166, 166,
    166, 166, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95,
    96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111,
    112, 166, 114, 115, 116, 117, 118, 119, 120, 166, 122, 123, 124, 125, 126, 166,
    128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 166, 142, 166,
    144, 145, 146, 147, 148, 149, 151, 151, 152, 95, 95, 155, 156, 157, 95, 95,
    160, 125, 162, 163, 164, 165, 166, 125, 60, 60, 60, 171, 172, 173, 174, 175,
    176, 92, 92, 92, 92, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Number, inline caches, effect on the stack, the same when it jumps, where it goes on, how it calls.
#[rustfmt::skip]
static OPS: [Op; 109] = [
    op(1, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // POP_TOP
    op(2, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // PUSH_NULL
    op(9, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // NOP
    op(10, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_POSITIVE
    op(11, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_NEGATIVE
    op(12, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_NOT
    op(15, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_INVERT
    op(25, 4, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_SUBSCR
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
    op(60, 1, Effect::Fixed(-3), Effect::Fixed(-3), Flow::Next, CallKind::None), // STORE_SUBSCR
    op(61, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // DELETE_SUBSCR
    op(68, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_ITER
    op(69, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_YIELD_FROM_ITER
    op(70, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // PRINT_EXPR
    op(71, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_BUILD_CLASS
    op(74, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_ASSERTION_ERROR
    op(75, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // RETURN_GENERATOR
    op(82, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // LIST_TO_TUPLE
    op(83, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Stop, CallKind::None), // RETURN_VALUE
    op(84, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // IMPORT_STAR
    op(85, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // SETUP_ANNOTATIONS
    op(86, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // YIELD_VALUE
    op(87, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // ASYNC_GEN_WRAP
    op(88, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // PREP_RERAISE_STAR
    op(89, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // POP_EXCEPT
    op(90, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_NAME
    op(91, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_NAME
    op(92, 1, Effect::PerArgument(-1, 1), Effect::PerArgument(-1, 1), Flow::Next, CallKind::None), // UNPACK_SEQUENCE
    op(93, 0, Effect::Fixed(1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // FOR_ITER
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
    op(106, 4, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // LOAD_ATTR
    op(107, 2, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // COMPARE_OP
    op(108, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // IMPORT_NAME
    op(109, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // IMPORT_FROM
    op(110, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Jump, CallKind::None), // JUMP_FORWARD
    op(111, 0, Effect::Fixed(-1), Effect::Fixed(0), Flow::Branch, CallKind::None), // JUMP_IF_FALSE_OR_POP
    op(112, 0, Effect::Fixed(-1), Effect::Fixed(0), Flow::Branch, CallKind::None), // JUMP_IF_TRUE_OR_POP
    op(114, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_FORWARD_IF_FALSE
    op(115, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_FORWARD_IF_TRUE
    op(116, 5, Effect::LowBit(1, 1), Effect::LowBit(1, 1), Flow::Next, CallKind::None), // LOAD_GLOBAL
    op(117, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // IS_OP
    op(118, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // CONTAINS_OP
    op(119, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Stop, CallKind::None), // RERAISE
    op(120, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // COPY
    op(122, 1, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_OP
    op(123, 0, Effect::Fixed(0), Effect::Fixed(-1), Flow::Branch, CallKind::None), // SEND
    op(124, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_FAST
    op(125, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_FAST
    op(126, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_FAST
    op(128, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_FORWARD_IF_NOT_NONE
    op(129, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // POP_JUMP_FORWARD_IF_NONE
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
    op(142, 0, Effect::LowBit(-2, -1), Effect::LowBit(-2, -1), Flow::Next, CallKind::Unpacked), // CALL_FUNCTION_EX
    op(144, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Extend, CallKind::None), // EXTENDED_ARG
    op(145, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // LIST_APPEND
    op(146, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // SET_ADD
    op(147, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // MAP_ADD
    op(148, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_CLASSDEREF
    op(149, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // COPY_FREE_VARS
    op(151, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // RESUME
    op(152, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // MATCH_CLASS
    op(155, 0, Effect::FormatValue, Effect::FormatValue, Flow::Next, CallKind::None), // FORMAT_VALUE
    op(156, 0, Effect::PerArgument(0, -1), Effect::PerArgument(0, -1), Flow::Next, CallKind::None), // BUILD_CONST_KEY_MAP
    op(157, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_STRING
    op(160, 10, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_METHOD
    op(162, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // LIST_EXTEND
    op(163, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // SET_UPDATE
    op(164, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // DICT_MERGE
    op(165, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // DICT_UPDATE
    op(166, 1, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::Positional), // PRECALL
    op(171, 4, Effect::PerArgument(-1, -1), Effect::PerArgument(-1, -1), Flow::Next, CallKind::Positional), // CALL
    op(172, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // KW_NAMES
    op(173, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::BranchBack, CallKind::None), // POP_JUMP_BACKWARD_IF_NOT_NONE
    op(174, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::BranchBack, CallKind::None), // POP_JUMP_BACKWARD_IF_NONE
    op(175, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::BranchBack, CallKind::None), // POP_JUMP_BACKWARD_IF_FALSE
    op(176, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::BranchBack, CallKind::None), // POP_JUMP_BACKWARD_IF_TRUE
];
