// Addresses as text, and the private data of a connection request, as far as neither needs a
// device.
#include "fabric/verbs/verbs.h"
#include "fuzz/script.h"

using namespace rfaas::fabric::verbs;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    const std::vector<uint8_t> padded(data, data + bytes);
    std::vector<uint8_t> inner;
    if (decode_private(padded, &inner)) {
        FUZZ_CHECK(inner.size() <= bytes);
        FUZZ_CHECK(encode_private(inner.data(), inner.size()).size() == inner.size() + 1);
    }
    const std::string text(reinterpret_cast<const char*>(data), bytes);
    Address address;
    if (parse_address(text, &address) == 0) {
        // What we make of an address is an address again, and the same.
        const std::string again = format_address(address.get());
        Address second;
        FUZZ_CHECK(parse_address(again, &second) == 0);
        FUZZ_CHECK(format_address(second.get()) == again);
        (void)is_wildcard(address.get());
    }
    return 0;
}
