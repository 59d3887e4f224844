//! Arrays as NumPy's `.npy` files, version 1.0: `<f4`, C order, two dimensions.
//!
//! ```text
//! 0x93 "NUMPY" 1 0, header length u16, header (a Python dict, spaces, a line feed): 64-byte blocks;   then the elements
//! ```

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// Rows of `f32`, all of one width.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rows {
    count: usize,
    width: usize,
    values: Vec<f32>,
}

impl Rows {
    /// Adds a row, each element rounded to `f32`. Panics if it is not as wide as the first.
    pub(crate) fn push(&mut self, row: &[f64]) {
        assert!(self.count == 0 || self.width == row.len(), "rows of different widths");
        self.count += 1;
        self.width = row.len();
        self.values.extend(row.iter().map(|x| *x as f32));
    }

    /// The row that was added last; empty if there is none.
    pub(crate) fn last(&self) -> &[f32] {
        &self.values[self.values.len() - self.width..]
    }

    /// Writes the array, `(rows, width)`.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut bytes = header(self.count, self.width);
        bytes.extend(self.values.iter().flat_map(|x| x.to_le_bytes()));
        fs::write(path, bytes).map_err(|error| Error::system(path.display().to_string(), &error))
    }
}

/// Everything before the first element.
fn header(rows: usize, cols: usize) -> Vec<u8> {
    const BEFORE_DICTIONARY: usize = 10;
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    let total = (BEFORE_DICTIONARY + text.len() + 1).next_multiple_of(64);
    while BEFORE_DICTIONARY + text.len() + 1 < total {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_as_numpy_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let mut rows = Rows::default();
        rows.push(&[1.0, -2.0, 0.1]);
        rows.push(&[0.0, 0.5, 1e300]);
        rows.write(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        // What `numpy.save` writes for this shape, up to the spaces.
        let start = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  ";
        assert!(bytes.starts_with(start));
        assert_eq!((bytes.len(), bytes[127]), (128 + 24, b'\n'));
        assert_eq!(bytes[128..][..8], [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
        assert_eq!(rows.last(), [0.0, 0.5, f32::INFINITY]);
    }

    #[test]
    fn the_data_begin_at_a_multiple_of_64() {
        for shape in [(1, 1), (312, 128_256), (usize::MAX, usize::MAX)] {
            let header = header(shape.0, shape.1);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(usize::from(u16::from_le_bytes([header[8], header[9]])) + 10, header.len());
        }
    }
}
