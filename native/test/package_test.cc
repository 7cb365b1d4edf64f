// Loading function packages: tables, libraries for the original rFaaS, and what is wrong with one
// that is refused. The packages are built from packages/package.cc.
#include "executor/package.h"

#include <gtest/gtest.h>

#include <cstring>

namespace rfaas::executor {

namespace {

struct Loaded {
    bool ok = false;
    std::vector<Function> functions;
    std::string reason;
};

Loaded load(const std::string& name) {
    Loaded loaded;
    const std::string path = name[0] == '/' ? name : RFAAS_PACKAGES "/" + name + ".so";
    loaded.ok = load_package(path, &loaded.functions, &loaded.reason);
    return loaded;
}

}  // namespace

TEST(Package, ATableGivesItsFunctionsInItsOrder) {
    const Loaded package = load("table");
    ASSERT_TRUE(package.ok) << package.reason;
    ASSERT_EQ(package.functions.size(), 2u);
    EXPECT_EQ(package.functions[0].name, "fail");
    EXPECT_EQ(package.functions[1].name, "echo");
    EXPECT_EQ(package.functions[1].legacy, nullptr);
    char output[8] = {};
    EXPECT_EQ(package.functions[1].call("abc", 3, output, sizeof output, nullptr), 3);
    EXPECT_STREQ(output, "abc");
    EXPECT_EQ(package.functions[1].call("abc", 3, output, 2, nullptr), RFAAS_OUTPUT_TOO_SMALL);
    char error[32] = {};
    rfaas_context context = {};
    context.error = error;
    context.error_capacity = sizeof error;
    EXPECT_EQ(package.functions[0].call(nullptr, 0, nullptr, 0, &context), RFAAS_ERROR);
    EXPECT_STREQ(error, "it failed");
}

TEST(Package, ALibraryOfTheOriginalRfaasGivesWhatItExportsByName) {
    const Loaded package = load("legacy");
    ASSERT_TRUE(package.ok) << package.reason;
    ASSERT_EQ(package.functions.size(), 2u) << "no data, nothing hidden, nothing of libc";
    EXPECT_EQ(package.functions[0].name, "alpha");
    EXPECT_EQ(package.functions[1].name, "zeta");
    EXPECT_EQ(package.functions[0].call, nullptr);
    char input[] = "xy";
    char output[8] = {};
    EXPECT_EQ(package.functions[1].legacy(input, 2, output), 2u);
    EXPECT_STREQ(output, "xy");
}

TEST(Package, WhatIsWrongWithAPackageIsSaid) {
    const std::pair<const char*, const char*> cases[] = {
        {"wrong_abi", "built for version 2 of rfaas/function.h; this worker has version 1"},
        {"no_name", "entry 1 of its function table"},
        {"twice", "entry 1 of its function table, \"echo\""},
        {"overlong", "entry 0 of its function table"},
        {"empty", "it exports no function"},
        {"/nowhere.so", "cannot open shared object file"},
        {"/proc/self/status", "invalid ELF header"},
    };
    for (const auto& [name, reason] : cases) {
        const Loaded package = load(name);
        EXPECT_FALSE(package.ok) << name;
        EXPECT_NE(package.reason.find(reason), std::string::npos) << name << ": " << package.reason;
    }
}

}  // namespace rfaas::executor
