//! Opcodes of CPython 3.8: as `dis` of that version gives them (`stack_effect`, `hasjrel`, `hasjabs`), but for what
//! enters and leaves `finally`: there `dis` counts six values always, and one is there unless an exception is on
//! its way.
//! The tables are written by `tools/layouts/generate.py`.

use super::{CallKind, Callable, Effect, Flow, IDENTITY, Op, Opcodes, op};

/// The opcodes.
pub const OPCODES: Opcodes = Opcodes {
    base: &IDENTITY,
    ops: &OPS,
    callable: Callable::BelowArguments,
    unpacked: [2, 3],
    jump_unit: 2,
    instrumented: None,
};

/// Number, inline caches, effect on the stack, the same when it jumps, where it goes on, how it calls.
#[rustfmt::skip]
static OPS: [Op; 120] = [
    op(1, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // POP_TOP
    op(2, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // ROT_TWO
    op(3, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // ROT_THREE
    op(4, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // DUP_TOP
    op(5, 0, Effect::Fixed(2), Effect::Fixed(2), Flow::Next, CallKind::None), // DUP_TOP_TWO
    op(6, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // ROT_FOUR
    op(9, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // NOP
    op(10, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_POSITIVE
    op(11, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_NEGATIVE
    op(12, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_NOT
    op(15, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // UNARY_INVERT
    op(16, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_MATRIX_MULTIPLY
    op(17, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_MATRIX_MULTIPLY
    op(19, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_POWER
    op(20, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_MULTIPLY
    op(22, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_MODULO
    op(23, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_ADD
    op(24, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_SUBTRACT
    op(25, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_SUBSCR
    op(26, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_FLOOR_DIVIDE
    op(27, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_TRUE_DIVIDE
    op(28, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_FLOOR_DIVIDE
    op(29, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_TRUE_DIVIDE
    op(50, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_AITER
    op(51, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // GET_ANEXT
    op(52, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // BEFORE_ASYNC_WITH
    op(53, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // BEGIN_FINALLY
    op(54, 0, Effect::Fixed(-7), Effect::Fixed(-7), Flow::Next, CallKind::None), // END_ASYNC_FOR
    op(55, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_ADD
    op(56, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_SUBTRACT
    op(57, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_MULTIPLY
    op(59, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_MODULO
    op(60, 0, Effect::Fixed(-3), Effect::Fixed(-3), Flow::Next, CallKind::None), // STORE_SUBSCR
    op(61, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // DELETE_SUBSCR
    op(62, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_LSHIFT
    op(63, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_RSHIFT
    op(64, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_AND
    op(65, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_XOR
    op(66, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // BINARY_OR
    op(67, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_POWER
    op(68, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_ITER
    op(69, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_YIELD_FROM_ITER
    op(70, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // PRINT_EXPR
    op(71, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_BUILD_CLASS
    op(72, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Again, CallKind::None), // YIELD_FROM
    op(73, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // GET_AWAITABLE
    op(75, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_LSHIFT
    op(76, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_RSHIFT
    op(77, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_AND
    op(78, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_XOR
    op(79, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // INPLACE_OR
    op(81, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // WITH_CLEANUP_START
    op(82, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // WITH_CLEANUP_FINISH
    op(83, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Stop, CallKind::None), // RETURN_VALUE
    op(84, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // IMPORT_STAR
    op(85, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // SETUP_ANNOTATIONS
    op(86, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // YIELD_VALUE
    op(87, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // POP_BLOCK
    op(88, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::EndFinally, CallKind::None), // END_FINALLY
    op(89, 0, Effect::Fixed(-3), Effect::Fixed(-3), Flow::Next, CallKind::None), // POP_EXCEPT
    op(90, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_NAME
    op(91, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_NAME
    op(92, 0, Effect::PerArgument(-1, 1), Effect::PerArgument(-1, 1), Flow::Next, CallKind::None), // UNPACK_SEQUENCE
    op(93, 0, Effect::Fixed(1), Effect::Fixed(-1), Flow::Branch, CallKind::None), // FOR_ITER
    op(94, 0, Effect::UnpackEx, Effect::UnpackEx, Flow::Next, CallKind::None), // UNPACK_EX
    op(95, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // STORE_ATTR
    op(96, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // DELETE_ATTR
    op(97, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_GLOBAL
    op(98, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_GLOBAL
    op(100, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_CONST
    op(101, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_NAME
    op(102, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_TUPLE
    op(103, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_LIST
    op(104, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_SET
    op(105, 0, Effect::PerArgument(1, -2), Effect::PerArgument(1, -2), Flow::Next, CallKind::None), // BUILD_MAP
    op(106, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // LOAD_ATTR
    op(107, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // COMPARE_OP
    op(108, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // IMPORT_NAME
    op(109, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // IMPORT_FROM
    op(110, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Jump, CallKind::None), // JUMP_FORWARD
    op(111, 0, Effect::Fixed(-1), Effect::Fixed(0), Flow::BranchTo, CallKind::None), // JUMP_IF_FALSE_OR_POP
    op(112, 0, Effect::Fixed(-1), Effect::Fixed(0), Flow::BranchTo, CallKind::None), // JUMP_IF_TRUE_OR_POP
    op(113, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::JumpTo, CallKind::None), // JUMP_ABSOLUTE
    op(114, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::BranchTo, CallKind::None), // POP_JUMP_IF_FALSE
    op(115, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::BranchTo, CallKind::None), // POP_JUMP_IF_TRUE
    op(116, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_GLOBAL
    op(122, 0, Effect::Fixed(0), Effect::Fixed(6), Flow::Handler, CallKind::None), // SETUP_FINALLY
    op(124, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_FAST
    op(125, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_FAST
    op(126, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_FAST
    op(130, 0, Effect::PerArgument(0, -1), Effect::PerArgument(0, -1), Flow::Stop, CallKind::None), // RAISE_VARARGS
    op(131, 0, Effect::PerArgument(0, -1), Effect::PerArgument(0, -1), Flow::Next, CallKind::Positional), // CALL_FUNCTION
    op(132, 0, Effect::MakeFunctionNamed, Effect::MakeFunctionNamed, Flow::Next, CallKind::None), // MAKE_FUNCTION
    op(133, 0, Effect::BuildSlice, Effect::BuildSlice, Flow::Next, CallKind::None), // BUILD_SLICE
    op(135, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_CLOSURE
    op(136, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_DEREF
    op(137, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // STORE_DEREF
    op(138, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Next, CallKind::None), // DELETE_DEREF
    op(141, 0, Effect::PerArgument(-1, -1), Effect::PerArgument(-1, -1), Flow::Next, CallKind::Keywords), // CALL_FUNCTION_KW
    op(142, 0, Effect::LowBit(-1, -1), Effect::LowBit(-1, -1), Flow::Next, CallKind::Unpacked), // CALL_FUNCTION_EX
    op(143, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Handler, CallKind::None), // SETUP_WITH
    op(144, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Extend, CallKind::None), // EXTENDED_ARG
    op(145, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // LIST_APPEND
    op(146, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // SET_ADD
    op(147, 0, Effect::Fixed(-2), Effect::Fixed(-2), Flow::Next, CallKind::None), // MAP_ADD
    op(148, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_CLASSDEREF
    op(149, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_LIST_UNPACK
    op(150, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_MAP_UNPACK
    op(151, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_MAP_UNPACK_WITH_CALL
    op(152, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_TUPLE_UNPACK
    op(153, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_SET_UNPACK
    op(154, 0, Effect::Fixed(0), Effect::Fixed(0), Flow::Handler, CallKind::None), // SETUP_ASYNC_WITH
    op(155, 0, Effect::FormatValue, Effect::FormatValue, Flow::Next, CallKind::None), // FORMAT_VALUE
    op(156, 0, Effect::PerArgument(0, -1), Effect::PerArgument(0, -1), Flow::Next, CallKind::None), // BUILD_CONST_KEY_MAP
    op(157, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_STRING
    op(158, 0, Effect::PerArgument(1, -1), Effect::PerArgument(1, -1), Flow::Next, CallKind::None), // BUILD_TUPLE_UNPACK_WITH_CALL
    op(160, 0, Effect::Fixed(1), Effect::Fixed(1), Flow::Next, CallKind::None), // LOAD_METHOD
    op(161, 0, Effect::PerArgument(-1, -1), Effect::PerArgument(-1, -1), Flow::Next, CallKind::Method), // CALL_METHOD
    op(162, 0, Effect::Fixed(0), Effect::Fixed(1), Flow::CallFinally, CallKind::None), // CALL_FINALLY
    op(163, 0, Effect::Fixed(-1), Effect::Fixed(-1), Flow::Next, CallKind::None), // POP_FINALLY
];
