//! Room: reserved bytes of a producer's buffer.

use engine::producer::Room;

use crate::boundary::boundary_or;
use crate::handle::{self, Opaque};

/// Reserved room in a producer's buffer. A send that is given it takes it; freeing it gives it back.
pub struct fluvio_room {
    _private: [u8; 0],
}

impl Opaque for fluvio_room {
    /// `None` only while a send that took it returns.
    type Value = Option<Room>;
    const NAME: &'static str = "room";
}

/// Gives room back to its producer. NULL is allowed.
///
/// Ownership: takes the room.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_room_free(room: *mut fluvio_room) {
    // SAFETY: the caller passes NULL or a room that it owns and does not use again.
    boundary_or((), || unsafe { handle::free_in_runtime(room) });
}
