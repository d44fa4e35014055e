//! Room: reserved bytes of a producer's buffer.

use engine::producer::Room;

use crate::boundary::boundary_or;
use crate::handle::{self, Opaque};

/// Reserved room in a producer's buffer. A send that is accepted with it takes what was reserved and leaves the room empty;
/// freeing it gives back what is left. An empty room is as none.
pub struct fluvio_room {
    _private: [u8; 0],
}

impl Opaque for fluvio_room {
    /// `None` once a send took it.
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
