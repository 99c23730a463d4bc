//! Memory for large tensors: on Linux the system is asked to back it with large pages. Products
//! read lines that lie pages apart, and would otherwise wait for page tables.

/// Shortest memory, in bytes, that large pages are asked for.
const LARGE: usize = 2 << 20;

/// Makes a list of `len` times `value`.
pub fn spacious<T: Copy>(len: usize, value: T) -> Vec<T> {
    let mut memory = Vec::with_capacity(len);
    advise(memory.as_mut_ptr(), len * size_of::<T>());
    memory.resize(len, value);
    memory
}

#[cfg(target_os = "linux")]
fn advise<T>(start: *mut T, bytes: usize) {
    if bytes < 2 * LARGE {
        return;
    }
    let first = start.cast::<u8>().wrapping_add(start.cast::<u8>().align_offset(LARGE));
    let skipped = first.addr() - start.addr();
    let whole = (bytes - skipped) / LARGE * LARGE;
    // SAFETY: the range lies inside the memory that the caller has; how pages are backed changes
    // nothing that is read or written.
    let _ = unsafe { rustix::mm::madvise(first.cast(), whole, rustix::mm::Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_start: *mut T, _bytes: usize) {}
