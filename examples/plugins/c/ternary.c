/* A plug-in with two right kernels, in plain C: weights I2_S times int8 activations, as exact integers and as floats.
 *
 *     cc -O2 -shared -fPIC -I engine/include -o libternary_c.so examples/plugins/c/ternary.c
 *     assay kernels check --plugin ./libternary_c.so
 */
#include "assay_kernel.h"

/* Sum of value * q over a row. I2_S: element j of a block of 128 is in byte j % 32, at shift 6 - 2 * (j / 32), and codes
 * 0, 1, 2 mean -1, 0, +1. |sum| <= cols * 128, so int32_t holds rows of up to 2^24 columns. */
static int32_t dot(const uint8_t *row, const int8_t *q, uint64_t cols) {
    int32_t sum = 0;
    for (uint64_t block = 0; block < cols / 128; block++) {
        const uint8_t *bytes = row + 32 * block;
        const int8_t *x = q + 128 * block;
        for (int p = 0; p < 32; p++) {
            for (int group = 0; group < 4; group++) {
                int code = bytes[p] >> (6 - 2 * group) & 3;
                sum += (code - 1) * x[32 * group + p];
            }
        }
    }
    return sum;
}

static int32_t run_i32(const assay_call *call) {
    for (uint32_t t = 0; t < call->tokens; t++) {
        const int8_t *q = (const int8_t *)call->activations + t * call->activations_stride;
        int32_t *out = (int32_t *)((char *)call->out + t * call->out_stride);
        for (uint64_t r = 0; r < call->rows; r++) {
            out[r] = dot((const uint8_t *)call->weights + r * call->weights_stride, q, call->cols);
        }
    }
    return ASSAY_OK;
}

static int32_t run_f32(const assay_call *call) {
    for (uint32_t t = 0; t < call->tokens; t++) {
        const int8_t *q = (const int8_t *)call->activations + t * call->activations_stride;
        float *out = (float *)((char *)call->out + t * call->out_stride);
        for (uint64_t r = 0; r < call->rows; r++) {
            int32_t sum = dot((const uint8_t *)call->weights + r * call->weights_stride, q, call->cols);
            /* exact-v1: two operations, each rounded. */
            float quotient = (float)sum / call->activation_scales[t];
            out[r] = quotient * call->tensor_scale;
        }
    }
    return ASSAY_OK;
}

static const assay_kernel gemm_i32 = {
    .struct_size = sizeof(assay_kernel),
    .result = ASSAY_RESULT_I32,
    .name = "gemm_i2s_i8",
    .weights = "I2_S",
    .activations = "i8",
    .max_tokens = 8,
    .run = run_i32,
};

static const assay_kernel gemm_f32 = {
    .struct_size = sizeof(assay_kernel),
    .result = ASSAY_RESULT_F32_EXACT,
    .name = "gemm_i2s_i8_f32",
    .weights = "I2_S",
    .activations = "i8",
    .max_tokens = 8,
    .run = run_f32,
};

static const assay_kernel *const kernels[] = {&gemm_i32, &gemm_f32};

static const assay_plugin plugin = {
    .struct_size = sizeof(assay_plugin),
    .abi_version = ASSAY_ABI_VERSION,
    .name = "ternary-c",
    .version = "1.0",
    .kernel_count = sizeof(kernels) / sizeof(kernels[0]),
    .kernels = kernels,
};

const assay_plugin *assay_plugin_v1(void) { return &plugin; }
