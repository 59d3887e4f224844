//! The symbol of a libggml of bitnet.cpp, with the published defect re-created here (products of pairs summed in 16-bit
//! lanes over 32 blocks before they are widened), or without it (`--cfg wide`). Our own code, none of theirs.

/// # Safety
/// - `x` holds `n` codes of I2_S, `y` as many int8, `s` one float.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ggml_vec_dot_i2_i8_s(
    n: i32, s: *mut f32, _bs: usize, x: *const u8, _bx: usize, y: *const i8, _by: usize, _nrc: i32,
) {
    let n = n as usize;
    let (x, y) = unsafe { (std::slice::from_raw_parts(x, n / 4), std::slice::from_raw_parts(y, n)) };
    let mut sum = 0_i32;
    for (x, y) in x.chunks(32 * 32).zip(y.chunks(128 * 32)) {
        let mut lanes = [0_i16; 16];
        for (x, y) in x.chunks(32).zip(y.chunks(128)) {
            for group in 0..4 {
                for lane in 0..16 {
                    let product = |p: usize| i32::from(x[p] >> (6 - 2 * group) & 3) * i32::from(y[32 * group + p]);
                    let pair = product(2 * lane) + product(2 * lane + 1);
                    if cfg!(wide) {
                        sum += pair;
                    } else {
                        lanes[lane] = lanes[lane].wrapping_add(pair as i16);
                    }
                }
            }
        }
        sum += lanes.iter().map(|&lane| i32::from(lane)).sum::<i32>();
    }
    unsafe { *s = sum as f32 };
}
