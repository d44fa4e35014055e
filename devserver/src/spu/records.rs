//! Where the records of a produce request stand in its frame.
//!
//! The codecs of the platform copy every record set; this type only notes its place, so that the batches can be taken out
//! of the frame as they are.

use std::io::{Error, ErrorKind};

use bytes::{Buf, BufMut, Bytes};
use fluvio_protocol::{Decoder, Encoder, Version};

/// The place of a record set: counted from the end of the request, because a decoder knows only what is left to read.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct RecordsPlace {
    /// Bytes from the first batch to the end of the request.
    pub(super) from_end: usize,
    /// Bytes of all batches.
    pub(super) len: usize,
}

impl Decoder for RecordsPlace {
    fn decode<T: Buf>(&mut self, source: &mut T, version: Version) -> Result<(), Error> {
        let len = i32::decode_from(source, version)?;
        let len = usize::try_from(len)
            .map_err(|_| Error::new(ErrorKind::InvalidData, "record set of negative length"))?;
        let from_end = source.remaining();
        if from_end < len {
            return Err(Error::new(ErrorKind::UnexpectedEof, "record set is cut"));
        }
        source.advance(len);
        *self = RecordsPlace { from_end, len };
        Ok(())
    }
}

/// Required by the request type; a place alone cannot be sent.
impl Encoder for RecordsPlace {
    fn write_size(&self, _version: Version) -> usize {
        0
    }

    fn encode<T: BufMut>(&self, _dest: &mut T, _version: Version) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// The length of a record set whose batches follow the frame's head.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct RecordsFollow(pub(super) usize);

impl Encoder for RecordsFollow {
    fn write_size(&self, version: Version) -> usize {
        0_i32.write_size(version)
    }

    fn encode<T: BufMut>(&self, dest: &mut T, version: Version) -> Result<(), Error> {
        let len = i32::try_from(self.0)
            .map_err(|_| Error::new(ErrorKind::InvalidData, "record set of more than 2 GiB"))?;
        len.encode(dest, version)
    }
}

/// Required by the response type; answers are never read here.
impl Decoder for RecordsFollow {
    fn decode<T: Buf>(&mut self, _source: &mut T, _version: Version) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// A record set inside an answer: batches back to back.
#[derive(Debug, Default)]
pub(super) struct Records(pub(super) Vec<Bytes>);

impl Encoder for Records {
    fn write_size(&self, version: Version) -> usize {
        0_i32.write_size(version) + self.len()
    }

    fn encode<T: BufMut>(&self, dest: &mut T, version: Version) -> Result<(), Error> {
        RecordsFollow(self.len()).encode(dest, version)?;
        self.0.iter().for_each(|piece| dest.put_slice(piece));
        Ok(())
    }
}

impl Records {
    fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}

/// Required by the response type; answers are never read here.
impl Decoder for Records {
    fn decode<T: Buf>(&mut self, _source: &mut T, _version: Version) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }
}
