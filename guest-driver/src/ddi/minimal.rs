//! Entry points that do nothing, by number of arguments.

use crate::spec::ddi::Argument;
use crate::spec::nt::{NtStatus, STATUS_NOT_IMPLEMENTED, STATUS_SUCCESS};

macro_rules! minimal {
    ($($name:ident($($argument:ident),+) = $status:ident;)+) => {
        $(pub extern "system" fn $name($($argument: Argument),+) -> NtStatus {
            $(let _ = $argument;)+
            $status
        })+
    };
}

// What may be answered with success without anything being done.
minimal! {
    accepted1(a) = STATUS_SUCCESS;
    accepted2(a, b) = STATUS_SUCCESS;
    accepted3(a, b, c) = STATUS_SUCCESS;
    accepted5(a, b, c, d, e) = STATUS_SUCCESS;
}

// What a caller must not believe to have happened.
minimal! {
    unsupported1(a) = STATUS_NOT_IMPLEMENTED;
    unsupported2(a, b) = STATUS_NOT_IMPLEMENTED;
    unsupported3(a, b, c) = STATUS_NOT_IMPLEMENTED;
    unsupported4(a, b, c, d) = STATUS_NOT_IMPLEMENTED;
    unsupported6(a, b, c, d, e, f) = STATUS_NOT_IMPLEMENTED;
    unsupported7(a, b, c, d, e, f, g) = STATUS_NOT_IMPLEMENTED;
}
