//! The checksum of a record that lies in one piece.

/// A small record in the order in which its checksum takes it: body, then header. Two calls cost a short record
/// more than copying it does; on a boundary of eight bytes none of it is taken byte by byte but the last.
#[derive(Debug)]
#[repr(align(8))]
pub(super) struct Small([u8; 256]);

impl Small {
    pub(super) fn new() -> Self {
        Self([0; 256])
    }

    /// The checksum of a record whose body and header (without its own checksum) these are.
    pub(super) fn checksum(&mut self, body: &[u8], header: &[u8]) -> u32 {
        let length = body.len() + header.len();
        let Some(copy) = self.0.get_mut(..length) else {
            return crc32c::crc32c_append(crc32c::crc32c(body), header);
        };
        let (to_body, to_header) = copy.split_at_mut(body.len());
        to_body.copy_from_slice(body);
        to_header.copy_from_slice(header);
        crc32c::crc32c(copy)
    }
}
