//! Matrices with their values decoded, and the product with a vector.

use std::num::NonZero;
use std::thread;

use crate::error::{Error, Result, shown};
use crate::format::Stored;
use crate::rounding::Rounding;

/// Elements below which a product is not worth a second thread.
const WORTH_A_THREAD: usize = 1 << 20;

/// A weight matrix, `(rows, cols)`.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// What the input of the product is called in an error.
    name: String,
    pub(crate) rows: usize,
    cols: usize,
    /// Row-major.
    values: Vec<f32>,
    /// What the format of the weights does to the input.
    rounding: Rounding,
    /// Multiplies every product: the `.scale` tensor beside the weights, or 1.
    scale: f64,
}

impl Matrix {
    /// # Errors
    ///
    /// [`Error::Malformed`] for the first element that is no number.
    pub(crate) fn decode(name: &str, stored: &Stored, scale: f64) -> Result<Matrix> {
        let values = stored
            .values()
            .map_err(|problem| Error::malformed(format!("tensor {}", shown(name)), problem))?;
        let rounding = Rounding::before(stored.format);
        Ok(Matrix { name: name.to_owned(), rows: stored.rows, cols: stored.cols, values, rounding, scale })
    }

    /// Row `index`, `(cols)`. Panics if there is none.
    pub(crate) fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.cols..][..self.cols]
    }

    /// `y_r = scale * Σ_c W_rc x̂_c`, in rising `c`, where `x̂` is `x` rounded as the format wants; `(cols)` → `(rows)`.
    ///
    /// Each row belongs to one thread, so their number changes nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::NotFinite`] for an input that is NaN or infinite
    /// - [`Error::System`] if a thread cannot be started
    pub(crate) fn product(&self, x: &[f64], threads: usize) -> Result<Vec<f64>> {
        assert_eq!(x.len(), self.cols, "input of {}", self.name);
        let x = self.rounding.apply(x, &format!("input of {}", self.name))?;
        let mut y = vec![0.0; self.rows];
        let threads = if self.values.len() < WORTH_A_THREAD { 1 } else { allowed(threads) };
        if threads == 1 {
            self.fill(0, &mut y, &x);
            return Ok(y);
        }
        let share = self.rows.div_ceil(threads);
        thread::scope(|scope| {
            for (index, part) in y.chunks_mut(share).enumerate() {
                let x = &x;
                let work = move || self.fill(index * share, part, x);
                let started = thread::Builder::new().spawn_scoped(scope, work);
                started.map_err(|error| Error::system("a thread", &error))?;
            }
            Ok(())
        })?;
        Ok(y)
    }

    /// The rows of the product from `first` on.
    fn fill(&self, first: usize, y: &mut [f64], x: &[f64]) {
        for (r, y) in y.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (w, x) in self.row(first + r).iter().zip(x) {
                sum += f64::from(*w) * x;
            }
            *y = self.scale * sum;
        }
    }
}

/// No more threads than the machine runs at once, whatever the request says.
fn allowed(threads: usize) -> usize {
    threads.clamp(1, thread::available_parallelism().map_or(1, NonZero::get))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, cols: usize, scale: f64) -> Matrix {
        let values = (0..rows * cols).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        Matrix { name: "w".into(), rows, cols, values, rounding: Rounding::None, scale }
    }

    #[test]
    fn a_product_is_a_product() {
        let w = matrix(2, 3, 0.5);
        assert_eq!(w.row(1), [-40.0, -3.0, 34.0]);
        assert_eq!(
            w.product(&[1.0, -2.0, 0.25], 1).unwrap(),
            [0.5 * (-50.0 + 26.0 + 6.0), 0.5 * (-40.0 + 6.0 + 8.5)]
        );
    }

    #[test]
    fn threads_change_nothing() {
        let w = matrix(1025, 1024, 1.0);
        let x: Vec<f64> = (0..1024).map(|i| f64::from(i).sin()).collect();
        let alone = w.product(&x, 1).unwrap();
        assert!([2, 3, usize::MAX].iter().all(|threads| w.product(&x, *threads).unwrap() == alone));
    }
}
