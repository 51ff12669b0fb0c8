//! Standard output on Windows.

use std::os::windows::io::{FromRawHandle as _, OwnedHandle};
use std::ptr;

use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
use windows_sys::Win32::System::Console::{GetStdHandle, STD_OUTPUT_HANDLE, SetStdHandle};

/// Closes it, so that its reader sees its end. What is printed later goes nowhere.
pub fn close() {
    #[expect(unsafe_code, reason = "the standard library never closes it")]
    // SAFETY: takes a number and gives one.
    let handle = unsafe { GetStdHandle(STD_OUTPUT_HANDLE) };
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return;
    }
    #[expect(unsafe_code, reason = "the standard library never closes it")]
    // SAFETY: takes numbers. The standard library asks for the handle each time, and takes none for a program without an output.
    let replaced = unsafe { SetStdHandle(STD_OUTPUT_HANDLE, ptr::null_mut()) };
    if replaced != 0 {
        #[expect(unsafe_code, reason = "the standard library never closes it")]
        // SAFETY: the process inherited it for itself, and who asks for standard output from now on does not get it any more.
        let inherited = unsafe { OwnedHandle::from_raw_handle(handle) };
        drop(inherited);
    }
}
