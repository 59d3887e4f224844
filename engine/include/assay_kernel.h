/* assay_kernel.h: kernels from outside, version 1.
 *
 * A plug-in is a shared library that exports one function,
 *
 *     const assay_plugin *assay_plugin_v1(void);
 *
 * which names the plug-in and lists its kernels. Each kernel multiplies encoded weights by quantised activations:
 *
 *     out[t][r] = sum over c of  weight[r][c] * activation[t][c]        r < rows, c < cols, t < tokens
 *
 * docs/plugins.md is the tutorial; examples/plugins/c and examples/plugins/rust are two that are right. Plain C11 and
 * C++11; no other header of Assay is needed. Everything is in the byte order of the machine, which must be
 * little-endian.
 *
 * Growth: a struct grows at its end only, and `struct_size` says how much of it its writer knows. A plug-in built with
 * an older header of the same version works; another `abi_version` is refused with an error.
 */
#ifndef ASSAY_KERNEL_H
#define ASSAY_KERNEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ASSAY_ABI_VERSION 1u

/* What a kernel writes: 4 bytes for each output. */
enum {
    /* int32_t: the exact sum of value * q, before any scale. Weights without scales inside ("I2_S", "QK256", ...) and
     * activations "i8" only. */
    ASSAY_RESULT_I32 = 0,
    /* float: the bits of the contract exact-v1 (docs/numerics.md). For weights with one tensor scale:
     * ((float)sum / s) * tensor_scale, rounded after each operation. For blocks: y = fma(d_w * d_a, (float)sum, y) over
     * rising blocks from +0. */
    ASSAY_RESULT_F32_EXACT = 1,
    /* float, in an order of operations of its own. Must be exact where every order is (scales that are powers of two,
     * sums below 2^24), and elsewhere within relative_bound of the sum of the terms' magnitudes. */
    ASSAY_RESULT_F32_CLOSE = 2
};

/* What run() returns. */
enum {
    ASSAY_OK = 0,
    /* Not computed, nothing written: a shape that this kernel does not take. Not a fault, but a kernel that declines
     * every case has shown nothing. */
    ASSAY_DECLINED = 1
    /* Anything else is a failure and is reported. */
};

/* One multiplication. Only what is named here may be touched: nothing is readable past the last byte of the last row,
 * nothing writable but the outputs. Inputs may lie in read-only memory. */
typedef struct assay_call {
    uint32_t struct_size;
    uint32_t abi_version;
    const void *weights;            /* row r begins at (const char *)weights + r * weights_stride */
    uint64_t weights_row_bytes;     /* bytes of a row */
    uint64_t weights_stride;        /* bytes from row to row, at least weights_row_bytes; what lies between is not read */
    uint64_t rows;                  /* may be 0 */
    uint64_t cols;                  /* a multiple of the weight format's block and of the kernel's cols_multiple */
    float tensor_scale;             /* the scale of the whole tensor; 1 where the blocks carry their own */
    uint32_t tokens;                /* 1 to max_tokens */
    const void *activations;        /* token t begins at (const char *)activations + t * activations_stride */
    uint64_t activations_row_bytes; /* bytes of a token */
    uint64_t activations_stride;    /* bytes from token to token */
    const float *activation_scales; /* "i8": the s of each token (q = x * s); 1 for other formats */
    void *out;                      /* token t, row r at (char *)out + t * out_stride + 4 * r */
    uint64_t out_stride;            /* bytes from token to token, at least 4 * rows, a multiple of 4 */
} assay_call;

/* May be called from several threads at once. */
typedef int32_t (*assay_run)(const assay_call *call);

typedef struct assay_kernel {
    uint32_t struct_size;
    uint32_t result;            /* ASSAY_RESULT_... */
    const char *name;           /* 1 to 64 of A-Z a-z 0-9 . _ / + -   unique in the plug-in */
    const char *weights;        /* a weight format: "I2_S", "QK256", "TQ1_0", "TQ2_0", "Q2_0", "Q8_0", ... */
    const char *activations;    /* "i8", "q8_K", "q8_0", "q8_1", "f32" */
    uint32_t max_tokens;        /* tokens taken at once: 1 for a GEMV */
    uint32_t cols_multiple;     /* row lengths that it takes, besides what the format asks for; 0 or 1: any */
    uint32_t weights_align;     /* alignment of every row that it needs: a power of two up to 4096; 0: any address */
    uint32_t activations_align; /* the same of every token */
    uint32_t out_align;         /* of every token's outputs; 0 means 4 */
    float relative_bound;       /* ASSAY_RESULT_F32_CLOSE: 0 for the default, (blocks + 16) * 2^-24 */
    assay_run run;
} assay_kernel;

typedef struct assay_plugin {
    uint32_t struct_size;
    uint32_t abi_version;                /* ASSAY_ABI_VERSION */
    const char *name;                    /* 1 to 64 of the same characters */
    const char *version;                 /* free text, at most 64 bytes */
    uint64_t kernel_count;               /* at most 1024 */
    const assay_kernel *const *kernels;  /* kernel_count pointers; all of it lives as long as the library is loaded */
} assay_plugin;

/* The one symbol that Assay looks up. */
#if defined(_WIN32)
#define ASSAY_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define ASSAY_EXPORT __attribute__((visibility("default")))
#else
#define ASSAY_EXPORT
#endif
ASSAY_EXPORT const assay_plugin *assay_plugin_v1(void);

#ifdef __cplusplus
}
#endif

#endif /* ASSAY_KERNEL_H */
