/* Quantize and dequantize, and the gradients of that, in one pass over memory each: autograd/kernels/compiled.py says what is whose. */

#include <math.h>
#include <stdint.h>

enum { LANES = 16 };

static const float WHOLE = 8388608.0f; /* from 2**23 on a float32 is an integer */

/* A tensor in the order of its memory, (outer, channels, inner), with a scale for each of the channels. It is cut into units, which may be
   done in any order and at once: up to `length` elements of a row of `inner`, or `length` rows of channels where `inner` is 1. */
struct job {
    const float *x, *grad, *scale, *zero_point; /* of each channel; zero points are whole */
    float *out;                                 /* forward: the result; backward: the gradient of x */
    double *of_scale, *of_zero_point;           /* of rows: one sum for each unit; of columns: `channels` of them */
    int64_t outer, channels, inner, length;
    float qmin, qmax;
};

/* Half to even, as rintf, but without a call of it for each element. The sign of zero is lost, for which no caller cares. */
static inline float rounded(float ratio)
{
    float shift = copysignf(WHOLE, ratio), near = (ratio + shift) - shift;
    return fabsf(ratio) < WHOLE ? near : ratio;
}

/* What codes there are, at one scale. */
struct grid {
    float scale, zero_point, qmin, qmax;
};

static inline float quantized(struct grid grid, float x)
{
    float code = rounded(x / grid.scale) + grid.zero_point;
    code = grid.qmin > code ? grid.qmin : code;
    code = grid.qmax < code ? grid.qmax : code;
    return (code - grid.zero_point) * grid.scale;
}

/* Return the gradient of x, and set what one element adds to those of scale and zero point. */
static inline float gradients(struct grid grid, float grad, float x, float *of_scale, float *of_zero)
{
    float ratio = x / grid.scale, whole = rounded(ratio), code = whole + grid.zero_point;
    float slope = code > grid.qmax ? grid.qmax - grid.zero_point : whole - ratio;
    slope = code < grid.qmin ? grid.qmin - grid.zero_point : slope;
    float clipped = code > grid.qmax ? grad : 0.0f;
    clipped = code < grid.qmin ? grad : clipped;
    *of_scale = grad * slope;
    *of_zero = clipped * -grid.scale;
    float passed = code > grid.qmax ? 0.0f : grad;
    return code < grid.qmin ? 0.0f : passed;
}

static struct grid grid_of(const struct job *job, int64_t channel)
{
    struct grid grid = {job->scale[channel], job->zero_point[channel], job->qmin, job->qmax};
    return grid;
}

/* Where a unit of rows begins, its channel, and how many elements it has. */
static int64_t place(const struct job *job, int64_t unit, int64_t *channel, int64_t *count)
{
    int64_t units = (job->inner + job->length - 1) / job->length, row = unit / units, from = unit % units * job->length;
    *channel = row % job->channels;
    *count = job->inner - from < job->length ? job->inner - from : job->length;
    return row * job->inner + from;
}

void zeropoint_quantize_rows(const struct job *job, int64_t first, int64_t last)
{
    for (int64_t unit = first; unit < last; unit++) {
        int64_t channel, count, at = place(job, unit, &channel, &count);
        struct grid grid = grid_of(job, channel);
        const float *restrict x = job->x + at;
        float *restrict out = job->out + at;
        for (int64_t i = 0; i < count; i++)
            out[i] = quantized(grid, x[i]);
    }
}

void zeropoint_quantize_columns(const struct job *job, int64_t first, int64_t last)
{
    int64_t rows = last * job->length < job->outer ? last * job->length : job->outer, channels = job->channels;
    const float *restrict scale = job->scale, *restrict zero_point = job->zero_point;
    float qmin = job->qmin, qmax = job->qmax;
    for (int64_t row = first * job->length; row < rows; row++) {
        const float *restrict x = job->x + row * channels;
        float *restrict out = job->out + row * channels;
        for (int64_t channel = 0; channel < channels; channel++) {
            struct grid grid = {scale[channel], zero_point[channel], qmin, qmax};
            out[channel] = quantized(grid, x[channel]);
        }
    }
}

void zeropoint_gradients_of_rows(const struct job *job, int64_t first, int64_t last)
{
    for (int64_t unit = first; unit < last; unit++) {
        int64_t channel, count, at = place(job, unit, &channel, &count), i = 0;
        struct grid grid = grid_of(job, channel);
        const float *restrict x = job->x + at, *restrict grad = job->grad + at;
        float *restrict out = job->out + at;
        float of_scale[LANES] = {0}, of_zero[LANES] = {0}, scale_terms[LANES], zero_terms[LANES];
        for (; i + LANES <= count; i += LANES) {
            for (int lane = 0; lane < LANES; lane++)
                out[i + lane] = gradients(grid, grad[i + lane], x[i + lane], scale_terms + lane, zero_terms + lane);
            for (int lane = 0; lane < LANES; lane++) {
                of_scale[lane] += scale_terms[lane];
                of_zero[lane] += zero_terms[lane];
            }
        }
        for (int lane = 0; i < count; i++, lane++) {
            out[i] = gradients(grid, grad[i], x[i], scale_terms, zero_terms);
            of_scale[lane] += *scale_terms;
            of_zero[lane] += *zero_terms;
        }
        double scale_sum = 0.0, zero_sum = 0.0;
        for (int lane = 0; lane < LANES; lane++) {
            scale_sum += of_scale[lane];
            zero_sum += of_zero[lane];
        }
        job->of_scale[unit] = scale_sum;
        job->of_zero_point[unit] = zero_sum;
    }
}

void zeropoint_gradients_of_columns(const struct job *job, int64_t first, int64_t last)
{
    int64_t channels = job->channels;
    const float *restrict scale = job->scale, *restrict zero_point = job->zero_point;
    float qmin = job->qmin, qmax = job->qmax;
    for (int64_t unit = first; unit < last; unit++) {
        double *restrict of_scale = job->of_scale + unit * channels, *restrict of_zero = job->of_zero_point + unit * channels;
        int64_t rows = (unit + 1) * job->length < job->outer ? (unit + 1) * job->length : job->outer;
        for (int64_t channel = 0; channel < channels; channel++)
            of_scale[channel] = of_zero[channel] = 0.0;
        for (int64_t row = unit * job->length; row < rows; row++) {
            const float *restrict x = job->x + row * channels, *restrict grad = job->grad + row * channels;
            float *restrict out = job->out + row * channels;
            for (int64_t channel = 0; channel < channels; channel++) {
                struct grid grid = {scale[channel], zero_point[channel], qmin, qmax};
                float scale_term, zero_term;
                out[channel] = gradients(grid, grad[channel], x[channel], &scale_term, &zero_term);
                of_scale[channel] += scale_term;
                of_zero[channel] += zero_term;
            }
        }
    }
}
