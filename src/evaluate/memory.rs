//! The most memory that a stretch of work had, where the system counts it (Linux).

/// Starts counting anew; whether that was possible.
pub(super) fn start_counting() -> bool {
    // 5 resets the largest resident set size, see proc_pid_clear_refs(5).
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Largest resident memory of the process since then, or since its start, bytes.
pub(crate) fn largest() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
