//! How memory is reused.

/// Keeps freed memory for the next allocation. Training frees and takes the same large arrays at every step, and giving them
/// back to the system in between takes a fifth of its time. For all of the process, so it is for programs to call, first of
/// all. Only where the C library is glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_freed() {
    const MMAP_THRESHOLD: libc::c_int = 32 << 20;
    const TRIM_THRESHOLD: libc::c_int = 1 << 30;
    const TOP_PAD: libc::c_int = 64 << 20;
    // Memory that threads have for themselves is given back whatever the thresholds.
    const ARENAS: libc::c_int = 1;
    // SAFETY: `mallopt` takes any numbers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
        libc::mallopt(libc::M_TOP_PAD, TOP_PAD);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Elsewhere memory is left to the system.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed() {}
