//! An allocator whose larger pieces end or begin at a page that nobody may touch.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Smaller pieces come from the system: every guarded one takes at least three pages.
const SMALLEST: usize = 1024;

/// Which end of a piece touches the forbidden page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Reading or writing beyond the last byte ends the process.
    End,
    /// Reading or writing before the first byte does.
    Start,
}

static START: AtomicBool = AtomicBool::new(false);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// For all pieces from now on.
pub(crate) fn guard(side: Side) {
    START.store(side == Side::Start, Ordering::Relaxed);
}

/// Bytes of the largest piece since the last call.
pub(crate) fn largest() -> usize {
    LARGEST.swap(0, Ordering::Relaxed)
}

struct Guarded;

#[global_allocator]
static ALLOCATOR: Guarded = Guarded;

fn page() -> usize {
    // SAFETY: asks for a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

// SAFETY: pieces are mappings of their own, or the system allocator's; which of the two depends on the size alone, which is
// the same when the piece is returned. The other methods of the trait are made of these two.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        let page = page();
        if layout.size() < SMALLEST || layout.align() > page {
            // SAFETY: passed on.
            return unsafe { System.alloc(layout) };
        }
        let Some(inside) = layout.size().checked_next_multiple_of(page) else { return null_mut() };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping; the pages between its first and its last one are inside it.
        unsafe {
            let mapping = libc::mmap(null_mut(), inside + 2 * page, libc::PROT_NONE, flags, -1, 0);
            if mapping == libc::MAP_FAILED {
                return null_mut();
            }
            let first = mapping.cast::<u8>().add(page);
            if libc::mprotect(first.cast(), inside, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                libc::munmap(mapping, inside + 2 * page);
                return null_mut();
            }
            // Less than a page, so that the piece begins in the first page either way.
            let offset = if START.load(Ordering::Relaxed) { 0 } else { inside - layout.size() };
            first.add(offset - offset % layout.align())
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let page = page();
        if layout.size() < SMALLEST || layout.align() > page {
            // SAFETY: passed on.
            return unsafe { System.dealloc(piece, layout) };
        }
        let inside = layout.size().next_multiple_of(page);
        // SAFETY: the mapping begins one page before the one in which the piece begins.
        unsafe {
            let mapping = piece.sub(piece.addr() % page + page);
            libc::munmap(mapping.cast(), inside + 2 * page);
        }
    }
}
