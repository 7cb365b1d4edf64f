// Prices European options with the formula of Black and Scholes (1973).
//
// Input of `price`, little-endian, no padding:
//
//     u64 count
//     f64 spot[count]         price of the underlying, > 0
//     f64 strike[count]       > 0
//     f64 rate[count]         continuously compounded, per year, finite
//     f64 volatility[count]   per year, > 0
//     f64 time[count]         years to expiry, > 0
//     f64 type[count]         1: call, -1: put
//
// Output: f64 price[count]. Columns instead of records: each is read with unit stride, and a
// worker's input is aligned to 64 bytes, so that every column is aligned to 8.
#include <rfaas/function.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numbers>

static_assert(std::endian::native == std::endian::little && sizeof(double) == 8);

namespace {

constexpr size_t kColumns = 6;
constexpr size_t kHeaderBytes = sizeof(uint64_t);
constexpr size_t kOptionBytes = kColumns * sizeof(double);
constexpr const char* kNames[kColumns] = {"spot", "strike", "rate", "volatility", "time", "type"};

struct Columns {
    const double* spot;
    const double* strike;
    const double* rate;
    const double* volatility;
    const double* time;
    const double* type;
};

// erfc keeps its relative accuracy far out in the tail, where 1 - cdf(-x) would have lost it.
inline double normal_cdf(double x) {
    return 0.5 * std::erfc(-x * (1 / std::numbers::sqrt2));
}

// No branches: with type = ±1 both kinds of option are the same expression.
void price_all(const Columns& c, size_t count, double* __restrict price) {
    for (size_t i = 0; i < count; ++i) {
        const double deviation = c.volatility[i] * std::sqrt(c.time[i]);
        const double drift = (c.rate[i] + 0.5 * c.volatility[i] * c.volatility[i]) * c.time[i];
        const double d1 = (std::log(c.spot[i] / c.strike[i]) + drift) / deviation;
        const double d2 = d1 - deviation;
        const double discounted = c.strike[i] * std::exp(-c.rate[i] * c.time[i]);
        price[i] = c.type[i] * (c.spot[i] * normal_cdf(c.type[i] * d1) -
                                discounted * normal_cdf(c.type[i] * d2));
    }
}

bool valid(size_t column, double value) {
    if (column == 2) return std::isfinite(value);
    if (column == 5) return value == 1 || value == -1;
    return value > 0 && value <= std::numeric_limits<double>::max();
}

const char* allowed(size_t column) {
    if (column == 2) return "finite";
    if (column == 5) return "1 (call) or -1 (put)";
    return "finite and greater than 0";
}

int64_t price(const void* input, size_t input_bytes, void* output, size_t output_capacity,
              rfaas_context* context) {
    uint64_t count = 0;
    if (input_bytes >= kHeaderBytes) std::memcpy(&count, input, sizeof(count));
    // The division keeps a hostile count from overflowing the product.
    if (input_bytes < kHeaderBytes || count != (input_bytes - kHeaderBytes) / kOptionBytes ||
        (input_bytes - kHeaderBytes) % kOptionBytes != 0) {
        std::snprintf(context->error, context->error_capacity,
                      "input has %zu bytes and says %llu options; it must have 8 + 48 x options",
                      input_bytes, static_cast<unsigned long long>(count));
        return RFAAS_ERROR;
    }
    if (output_capacity / sizeof(double) < count) return RFAAS_OUTPUT_TOO_SMALL;

    const auto* values =
        reinterpret_cast<const double*>(static_cast<const char*>(input) + kHeaderBytes);
    for (size_t column = 0; column < kColumns; ++column) {
        for (size_t i = 0; i < count; ++i) {
            const double value = values[column * count + i];
            if (valid(column, value)) continue;
            std::snprintf(context->error, context->error_capacity,
                          "option %zu: %s is %g; it must be %s", i, kNames[column], value,
                          allowed(column));
            return RFAAS_ERROR;
        }
    }
    price_all({values, values + count, values + 2 * count, values + 3 * count, values + 4 * count,
               values + 5 * count},
              count, static_cast<double*>(output));
    return static_cast<int64_t>(count * sizeof(double));
}

}  // namespace

RFAAS_FUNCTIONS({"price", price})
