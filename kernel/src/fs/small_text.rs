//! Short text without allocation.

use core::fmt::{self, Write};

/// Up to 64 bytes of formatted text; what does not fit is cut off.
pub struct SmallText {
    bytes: [u8; 64],
    len: usize,
}

impl SmallText {
    /// The text `text`.
    pub fn new(text: fmt::Arguments<'_>) -> SmallText {
        let mut result = SmallText { bytes: [0; 64], len: 0 };
        // Writing to it never fails.
        let _ = result.write_fmt(text);
        result
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for SmallText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let count = text.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + count].copy_from_slice(&text.as_bytes()[..count]);
        self.len += count;
        Ok(())
    }
}
