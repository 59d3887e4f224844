//! A plug-in of wrong kernels, one for each way to be wrong; the last is right. Compiled by the test with plain rustc.
#![allow(static_mut_refs)]

use std::ffi::{c_char, c_void};

#[repr(C)]
pub struct Call {
    struct_size: u32,
    abi_version: u32,
    weights: *const u8,
    weights_row_bytes: u64,
    weights_stride: u64,
    rows: u64,
    cols: u64,
    tensor_scale: f32,
    tokens: u32,
    activations: *const i8,
    activations_row_bytes: u64,
    activations_stride: u64,
    activation_scales: *const f32,
    out: *mut c_void,
    out_stride: u64,
}

#[repr(C)]
pub struct Kernel {
    struct_size: u32,
    result: u32,
    name: *const c_char,
    weights: *const c_char,
    activations: *const c_char,
    max_tokens: u32,
    cols_multiple: u32,
    weights_align: u32,
    activations_align: u32,
    out_align: u32,
    relative_bound: f32,
    run: unsafe extern "C" fn(*const Call) -> i32,
}
unsafe impl Sync for Kernel {}

#[repr(C)]
pub struct Plugin {
    struct_size: u32,
    abi_version: u32,
    name: *const c_char,
    version: *const c_char,
    kernel_count: u64,
    kernels: *const &'static Kernel,
}
unsafe impl Sync for Plugin {}

impl Call {
    unsafe fn row(&self, r: u64) -> &[u8] {
        unsafe {
            let at = self.weights.add((r * self.weights_stride) as usize);
            std::slice::from_raw_parts(at, self.weights_row_bytes as usize)
        }
    }
    unsafe fn q(&self, t: u32) -> &[i8] {
        unsafe {
            let at = self.activations.add(t as usize * self.activations_stride as usize);
            std::slice::from_raw_parts(at, self.cols as usize)
        }
    }
    unsafe fn out(&self, t: u32, r: u64) -> *mut i32 {
        unsafe { self.out.cast::<u8>().add((u64::from(t) * self.out_stride + 4 * r) as usize).cast() }
    }
    /// Every output by `f`.
    unsafe fn each(&self, f: impl Fn(&[u8], &[i8]) -> i32) -> i32 {
        for t in 0..self.tokens {
            for r in 0..self.rows {
                unsafe { *self.out(t, r) = f(self.row(r), self.q(t)) };
            }
        }
        0
    }
}

fn code(row: &[u8], c: usize) -> i32 {
    i32::from(row[c / 128 * 32 + c % 32] >> (6 - 2 * (c % 128 / 32)) & 3)
}

fn right(row: &[u8], q: &[i8]) -> i32 {
    (0..q.len()).map(|c| (code(row, c) - 1) * i32::from(q[c])).sum()
}

fn sum(q: &[i8]) -> i32 {
    q.iter().map(|&q| i32::from(q)).sum()
}

macro_rules! kernels {
    ($($name:ident $result:literal $tokens:literal |$call:ident| $body:expr;)+) => {
        $(unsafe extern "C" fn $name(call: *const Call) -> i32 {
            #[allow(unused_unsafe)]
            unsafe { let $call = &*call; $body }
        })+
        static KERNELS: &[&Kernel] = &[$(&Kernel {
            struct_size: size_of::<Kernel>() as u32,
            result: $result,
            name: concat!(stringify!($name), "\0").as_ptr().cast(),
            weights: c"I2_S".as_ptr(),
            activations: c"i8".as_ptr(),
            max_tokens: $tokens,
            cols_multiple: 0,
            weights_align: 0,
            activations_align: 0,
            out_align: 0,
            relative_bound: 0.0,
            run: $name,
        }),+];
    };
}

static mut SHARED: [i32; 4] = [0; 4];
static mut CALLS: u32 = 0;

kernels! {
    wrong_shift 0 1 |call| call.each(|w, q| (0..q.len()).map(|c| {
        (i32::from(w[c / 128 * 32 + c % 32] >> (2 * (c % 128 / 32)) & 3) - 1) * i32::from(q[c])
    }).sum());
    group_64 0 1 |call| call.each(|w, q| (0..q.len()).map(|c| {
        (i32::from(w[c / 64 * 16 + c % 16] >> (6 - 2 * (c % 64 / 16)) & 3) - 1) * i32::from(q[c])
    }).sum());
    sequential 0 1 |call| call.each(|w, q| (0..q.len()).map(|c| {
        (i32::from(w[c / 4] >> (2 * (c % 4)) & 3) - 1) * i32::from(q[c])
    }).sum());
    i16_wraps 0 1 |call| call.each(|w, q| {
        let codes = (0..q.len()).fold(0_i16, |acc, c| acc.wrapping_add((code(w, c) * i32::from(q[c])) as i16));
        i32::from(codes) - sum(q)
    });
    i16_lanes_saturate 0 1 |call| call.each(|w, q| {
        let mut lanes = [0_i16; 32];
        for c in 0..q.len() {
            lanes[c % 32] = lanes[c % 32].saturating_add(((code(w, c) - 1) * i32::from(q[c])) as i16);
        }
        lanes.iter().map(|&lane| i32::from(lane)).sum()
    });
    sum_twice 0 1 |call| call.each(|w, q| right(w, q) - sum(q));
    no_zero 0 1 |call| call.each(|w, q| {
        (0..q.len()).map(|c| [-2, -1, 1, 2][code(w, c) as usize] * i32::from(q[c])).sum()
    });
    tail_skipped 0 1 |call| call.each(|w, q| right(w, &q[..q.len() / 256 * 256]));
    never_written 0 1 |_call| 0;
    last_row_not_written 0 1 |call| {
        for r in 0..call.rows.saturating_sub(1) { *call.out(0, r) = right(call.row(r), call.q(0)); }
        0
    };
    adds 0 1 |call| {
        for r in 0..call.rows {
            let out = call.out(0, r);
            *out = (*out).wrapping_add(right(call.row(r), call.q(0)));
        }
        0
    };
    writes_past_the_end 0 1 |call| { call.each(right); std::ptr::write_volatile(call.out(0, call.rows), 7); 0 };
    writes_before_the_start 0 1 |call| { call.each(right); std::ptr::write_volatile(call.out(0, 0).sub(1), 7); 0 };
    reads_past_the_end 0 1 |call| {
        let end = call.weights.add((call.rows * call.weights_stride) as usize);
        std::hint::black_box(std::ptr::read_volatile(end.add(3)));
        call.each(right)
    };
    reads_before_the_start 0 1 |call| {
        std::hint::black_box(std::ptr::read_volatile(call.activations.sub(1)));
        call.each(right)
    };
    reads_the_padding 0 1 |call| {
        for r in 0..call.rows {
            let (w, has_gap) = (call.row(r), call.weights_stride > call.weights_row_bytes && r + 1 < call.rows);
            let stale = if has_gap { i32::from(*w.as_ptr().add(w.len()) & 1) } else { 0 };
            *call.out(0, r) = right(w, call.q(0)) + stale;
        }
        0
    };
    writes_its_input 0 1 |call| {
        if call.rows > 0 { std::ptr::write_volatile(call.weights.cast_mut(), 0); }
        call.each(right)
    };
    null_pointer 0 1 |_call| { std::ptr::write_volatile(std::hint::black_box(std::ptr::null_mut::<i32>()), 1); 0 };
    aborts 0 1 |_call| std::process::abort();
    illegal_instruction 0 1 |_call| {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("ud2");
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("udf #0");
        0
    };
    exits 0 1 |_call| std::process::exit(0);
    hangs 0 1 |_call| loop { std::hint::black_box(()); };
    static_buffer 0 1 |call| {
        for r in 0..call.rows {
            SHARED[0] = 0;
            for (c, q) in call.q(0).iter().enumerate() {
                let sum = std::ptr::read_volatile(&raw const SHARED[0]);
                std::ptr::write_volatile(&raw mut SHARED[0], sum + (code(call.row(r), c) - 1) * i32::from(*q));
            }
            *call.out(0, r) = SHARED[0];
        }
        0
    };
    other_every_time 2 1 |call| {
        CALLS += 1;
        // One unit in the last place, now and then: within every bound.
        for r in 0..call.rows {
            let value = (right(call.row(r), call.q(0)) as f32 / *call.activation_scales) * call.tensor_scale;
            *call.out(0, r).cast::<f32>() =
                if CALLS % 2 == 0 && value.to_bits() & 1 == 1 { f32::from_bits(value.to_bits() + 1) } else { value };
        }
        0
    };
    no_scale 1 1 |call| call.each(|w, q| (right(w, q) as f32 / unsafe { *call.activation_scales }).to_bits() as i32);
    nan_on_zeros 1 1 |call| call.each(|w, q| {
        let largest = q.iter().map(|q| q.unsigned_abs()).max().unwrap_or(0);
        let value = (right(w, q) as f32 / unsafe { *call.activation_scales }) * call.tensor_scale;
        (value * (f32::from(largest) / f32::from(largest))).to_bits() as i32
    });
    tokens_mixed_up 0 2 |call| {
        for t in 0..call.tokens {
            for r in 0..call.rows { *call.out(t, r) = right(call.row(r), call.q(call.tokens - 1 - t)); }
        }
        0
    };
    flushes_subnormals 0 1 |call| {
        #[cfg(target_arch = "x86_64")]
        {
            let mut mxcsr = 0_u32;
            std::arch::asm!("stmxcsr [{}]", in(reg) &mut mxcsr);
            mxcsr |= 1 << 15;
            std::arch::asm!("ldmxcsr [{}]", in(reg) &mxcsr);
        }
        call.each(right)
    };
    declines 0 1 |_call| 1;
    fails 0 1 |_call| -5;
    right_one 0 3 |call| call.each(right);
}

static PLUGIN: Plugin = Plugin {
    struct_size: size_of::<Plugin>() as u32,
    abi_version: if cfg!(other_version) { 9 } else { 1 },
    name: c"bad".as_ptr(),
    version: c"0".as_ptr(),
    kernel_count: KERNELS.len() as u64,
    kernels: KERNELS.as_ptr(),
};

#[cfg(not(no_symbol))]
#[unsafe(no_mangle)]
pub extern "C" fn assay_plugin_v1() -> *const Plugin {
    if cfg!(dies_at_once) {
        std::process::abort();
    }
    &PLUGIN
}

#[cfg(no_symbol)]
#[unsafe(no_mangle)]
pub extern "C" fn something_else() -> *const Plugin {
    &PLUGIN
}
