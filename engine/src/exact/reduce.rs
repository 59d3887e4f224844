//! `R32`: every float reduction runs in 32 lanes and closes with one tree.

/// Lanes of a reduction: two AVX-512 registers, four AVX2, eight NEON, or one CUDA warp.
pub const LANES: usize = 32;

/// Closes the 32 lanes: for `s = 16, 8, 4, 2, 1`: `lane[l] = lane[l] + lane[l + s]` for `l < s`; the result is `lane[0]`.
pub fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut s = LANES / 2;
    while s > 0 {
        for l in 0..s {
            lanes[l] += lanes[l + s];
        }
        s /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_pairs_lanes_by_halves() {
        // 2^24 + 1 is lost in f32 unless the ones meet each other first.
        let mut lanes = [0.0; LANES];
        lanes[0] = 16_777_216.0;
        lanes[1] = 1.0;
        lanes[3] = 1.0;
        assert_eq!(tree(lanes), 16_777_218.0, "lanes 1 and 3 meet (s = 2) before lane 0 (s = 1)");
        lanes[3] = 0.0;
        lanes[2] = 1.0;
        assert_eq!(tree(lanes), 16_777_216.0, "lane 2 meets lane 0 alone (s = 2)");
    }
}
