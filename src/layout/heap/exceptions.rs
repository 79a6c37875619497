//! Fields of exceptions (Include/cpython/pyerrors.h of CPython 3.8 to 3.15): those that all have, and each one's own.

use super::Row;

/// Rows of exceptions: first and last minor version, name, and own fields behind those of `PyException_HEAD`, which has `__notes__` since
/// 3.11.
macro_rules! exceptions {
    ($($from:literal..$to:literal $name:literal $head:ident { $($own:literal: $at:literal),* })*) => {
        &[$(($from, $to, $name, exceptions!(@ $head $($own $at)*))),*]
    };
    (@ without_notes $($own:literal $at:literal)*) => {
        &[
            ("__dict__", 16),
            ("args", 24),
            ("__traceback__", 32),
            ("__cause__", 48),
            ("__context__", 40),
            $(($own, $at)),*
        ]
    };
    (@ with_notes $($own:literal $at:literal)*) => {
        &[
            ("__dict__", 16),
            ("args", 24),
            ("__notes__", 32),
            ("__traceback__", 40),
            ("__cause__", 56),
            ("__context__", 48),
            $(($own, $at)),*
        ]
    };
}

/// Exceptions, each with the fields of its bases.
pub(super) const EXCEPTIONS: &[Row] = exceptions! {
    10..10 "AttributeError" without_notes { "obj": 64, "name": 72 }
    11..15 "AttributeError" with_notes { "obj": 72, "name": 80 }
    8..10 "BaseException" without_notes {}
    11..15 "BaseException" with_notes {}
    11..13 "BaseExceptionGroup" with_notes { "message": 72, "exceptions": 80 }
    14..15 "BaseExceptionGroup" with_notes { "message": 72, "exceptions": 80, "excs_str": 88 }
    8..10 "ImportError" without_notes { "msg": 64, "name": 72, "path": 80 }
    11..11 "ImportError" with_notes { "msg": 72, "name": 80, "path": 88 }
    12..15 "ImportError" with_notes { "msg": 72, "name": 80, "path": 88, "name_from": 96 }
    10..10 "NameError" without_notes { "name": 64 }
    11..15 "NameError" with_notes { "name": 72 }
    8..10 "OSError" without_notes { "errno": 64, "strerror": 72, "filename": 80, "filename2": 88 }
    11..15 "OSError" with_notes { "errno": 72, "strerror": 80, "filename": 88, "filename2": 96 }
    8..10 "StopIteration" without_notes { "value": 64 }
    11..15 "StopIteration" with_notes { "value": 72 }
    8..9 "SyntaxError" without_notes { "msg": 64, "filename": 72, "lineno": 80, "offset": 88, "text": 96, "print_file_and_line": 104 }
    10..10 "SyntaxError" without_notes { "msg": 64, "filename": 72, "lineno": 80, "offset": 88, "end_lineno": 96, "end_offset": 104, "text": 112, "print_file_and_line": 120 }
    11..13 "SyntaxError" with_notes { "msg": 72, "filename": 80, "lineno": 88, "offset": 96, "end_lineno": 104, "end_offset": 112, "text": 120, "print_file_and_line": 128 }
    14..15 "SyntaxError" with_notes { "msg": 72, "filename": 80, "lineno": 88, "offset": 96, "end_lineno": 104, "end_offset": 112, "text": 120, "print_file_and_line": 128, "metadata": 136 }
    8..10 "SystemExit" without_notes { "code": 64 }
    11..15 "SystemExit" with_notes { "code": 72 }
    8..10 "UnicodeDecodeError" without_notes { "encoding": 64, "object": 72, "reason": 96 }
    11..15 "UnicodeDecodeError" with_notes { "encoding": 72, "object": 80, "reason": 104 }
    8..10 "UnicodeEncodeError" without_notes { "encoding": 64, "object": 72, "reason": 96 }
    11..15 "UnicodeEncodeError" with_notes { "encoding": 72, "object": 80, "reason": 104 }
    8..10 "UnicodeTranslateError" without_notes { "encoding": 64, "object": 72, "reason": 96 }
    11..15 "UnicodeTranslateError" with_notes { "encoding": 72, "object": 80, "reason": 104 }
};
