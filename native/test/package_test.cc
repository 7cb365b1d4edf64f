// Loading function packages: tables, libraries for the original rFaaS, and what is wrong with one
// that is refused. The packages are built from packages/package.cc.
#include "executor/package.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <set>

#include "executor/exports.h"

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
        {"/nowhere.so", "cannot be read: No such file"},
        {"/proc/self/status", "cannot be read"},
        {"/etc/passwd", "it has no ELF header"},
    };
    for (const auto& [name, reason] : cases) {
        const Loaded package = load(name);
        EXPECT_FALSE(package.ok) << name;
        EXPECT_NE(package.reason.find(reason), std::string::npos) << name << ": " << package.reason;
    }
}

TEST(Package, AFileThatIsCutOffAnywhereIsRefusedAndNotRun) {
    std::ifstream whole(RFAAS_PACKAGES "/legacy.so", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(whole)), {});
    std::set<std::string> all, names;
    std::string reason;
    const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
    ASSERT_TRUE(read_exports(data, bytes.size(), &all, &reason)) << reason;
    EXPECT_EQ(all, (std::set<std::string>{"alpha", "zeta"}));
    // Behind the segments come the sections, which no loader needs.
    size_t accepted = bytes.size();
    for (size_t length = 0; length < bytes.size(); ++length) {
        names.clear();
        reason.clear();
        if (read_exports(data, length, &names, &reason)) {
            accepted = std::min(accepted, length);
            EXPECT_EQ(names, all);
        } else {
            EXPECT_FALSE(reason.empty());
            EXPECT_LT(length, accepted) << "a longer part of the file is refused";
        }
    }
    EXPECT_GT(accepted, bytes.size() / 4);
}

TEST(Package, ADamagedFileNeverMakesTheParserReadBesideIt) {
    std::ifstream whole(RFAAS_PACKAGES "/table.so", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(whole)), {});
    for (size_t at = 0; at < std::min<size_t>(bytes.size(), 4096); ++at) {
        // On the heap and of the exact length, where the sanitizer sees a step beyond it.
        std::vector<uint8_t> damaged(bytes.begin(), bytes.end());
        damaged[at] ^= 0xff;
        std::set<std::string> names;
        std::string reason;
        const bool read = read_exports(damaged.data(), damaged.size(), &names, &reason);
        ASSERT_EQ(read, reason.empty()) << "byte " << at;
    }
}

}  // namespace rfaas::executor
