//! Memory with a wall: pages that nobody may touch right behind and right before a buffer, and inputs that nobody may write.
#![expect(unsafe_code, reason = "maps pages and changes their protection")]

use super::groups::Wall;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a buffer is for. The signal handler says which one an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Weights,
    Activations,
    Scales,
    Outputs,
}

impl Role {
    pub(super) const ALL: [Role; 4] = [Role::Weights, Role::Activations, Role::Scales, Role::Outputs];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Role::Weights => "weights",
            Role::Activations => "activations",
            Role::Scales => "activation scales",
            Role::Outputs => "outputs",
        }
    }
}

/// Where a buffer is mapped and where its data lie in it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) start: AtomicUsize,
    pub(super) end: AtomicUsize,
    pub(super) first: AtomicUsize,
    pub(super) last: AtomicUsize,
}

impl Place {
    const fn none() -> Place {
        Place {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            first: AtomicUsize::new(0),
            last: AtomicUsize::new(0),
        }
    }
}

/// The buffers of up to [`SETS`] threads, in the order of [`Role::ALL`].
pub(super) static PLACES: [[Place; 4]; SETS] = [const { [const { Place::none() }; 4] }; SETS];
pub(super) const SETS: usize = 8;

/// What buffers are filled with before data are put in: a byte that makes NaN of floats.
pub(super) const FILL: u8 = 0xff;

/// Pages between two that may not be touched.
#[derive(Debug)]
pub(super) struct Buffer {
    role: Role,
    set: usize,
    /// The wall in front.
    map: NonNull<u8>,
    page: usize,
    /// Bytes between the walls.
    room: usize,
    at: usize,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone; nothing in it is tied to a thread.
unsafe impl Send for Buffer {}

impl Buffer {
    /// `room` bytes at least, for the buffers of thread `set`.
    pub(super) fn new(role: Role, set: usize, room: usize) -> io::Result<Buffer> {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(4096);
        let room = room.next_multiple_of(page).max(page);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, at an address of the system's choice, that nobody may touch yet.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), room + 2 * page, libc::PROT_NONE, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let Some(map) = NonNull::new(map.cast()) else { return Err(io::Error::other("mapped at 0")) };
        let buffer = Buffer { role, set, map, page, room, at: 0, len: 0 };
        let place = &PLACES[set][role as usize];
        place.start.store(buffer.map.as_ptr().addr() + page, Ordering::SeqCst);
        place.end.store(buffer.map.as_ptr().addr() + page + room, Ordering::SeqCst);
        buffer.protect(true)?;
        Ok(buffer)
    }

    fn protect(&self, writable: bool) -> io::Result<()> {
        let rights = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: whole pages of this mapping, between the walls.
        let result = unsafe { libc::mprotect(self.map.as_ptr().add(self.page).cast(), self.room, rights) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Puts `bytes` where `wall` says, at a multiple of `align`, and makes them read-only unless they are outputs.
    pub(super) fn put(&mut self, bytes: &[u8], wall: Wall, align: usize) -> io::Result<()> {
        if bytes.len() + 4096 > self.room {
            *self = Buffer::new(self.role, self.set, 2 * bytes.len() + 4096)?;
        }
        self.protect(true)?;
        self.len = bytes.len();
        self.at = match wall {
            Wall::Behind => (self.room - bytes.len()) / align * align,
            Wall::Before => 0,
            Wall::Offset(offset) => offset,
        };
        let room = self.room;
        let all = self.all();
        let near = 256.min(room);
        all[..near].fill(FILL);
        all[room - near..].fill(FILL);
        let (at, len) = (self.at, self.len);
        let all = self.all();
        all[at.saturating_sub(near)..at].fill(FILL);
        all[at + len..(at + len + near).min(room)].fill(FILL);
        all[at..at + len].copy_from_slice(bytes);
        let place = &PLACES[self.set][self.role as usize];
        let first = self.map.as_ptr().addr() + self.page + self.at;
        place.first.store(first, Ordering::SeqCst);
        place.last.store(first + self.len, Ordering::SeqCst);
        if self.role == Role::Outputs { Ok(()) } else { self.protect(false) }
    }

    /// Everything between the walls; writable pages only.
    fn all(&mut self) -> &mut [u8] {
        // SAFETY: `room` bytes of this mapping, readable and writable while outputs are put or inputs are being put,
        // borrowed exclusively with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_ptr().add(self.page), self.room) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes at `at` lie between the walls, and are readable.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.page + self.at), self.len) }
    }

    /// The data as 4-byte words.
    ///
    /// # Panics
    /// - if they do not begin at a multiple of 4, or these are inputs.
    pub(super) fn words(&mut self) -> &mut [u32] {
        assert!(self.role == Role::Outputs && self.at.is_multiple_of(4));
        let (at, len) = (self.at, self.len);
        let bytes = &mut self.all()[at..at + len];
        // SAFETY: every bit pattern is a u32, and the address is a multiple of 4.
        let (before, words, after) = unsafe { bytes.align_to_mut::<u32>() };
        assert!(before.is_empty() && after.is_empty());
        words
    }

    /// The data as floats.
    ///
    /// # Panics
    /// - if they do not begin at a multiple of 4.
    pub(super) fn floats(&self) -> &[f32] {
        // SAFETY: every bit pattern is an f32.
        let (before, floats, after) = unsafe { self.bytes().align_to::<f32>() };
        assert!(before.is_empty() && after.is_empty());
        floats
    }

    /// Distance from the data of the nearest byte around them that is not [`FILL`] any more: below 0 for one before them.
    pub(super) fn stray(&mut self) -> Option<i64> {
        let (at, len, room) = (self.at, self.len, self.room);
        let all = self.all();
        let before =
            (at.saturating_sub(256)..at).rev().find(|i| all[*i] != FILL).map(|i| i as i64 - at as i64);
        before.or_else(|| {
            (at + len..(at + len + 256).min(room)).find(|i| all[*i] != FILL).map(|i| (i - at - len) as i64)
        })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the whole of a mapping that nothing refers to any more.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.room + 2 * self.page) };
    }
}
