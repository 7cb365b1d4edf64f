// The watchdog's two threads: a deadline that passes ends the process, one that does not is as if
// it had not been there.
#include "invocation/watchdog.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "core/time.h"

namespace rfaas::invocation {

namespace {

constexpr uint64_t kHour = 3600ull * 1'000'000'000;
constexpr int kExpired = 124;

[[noreturn]] void expire() {
    ::_exit(kExpired);
}

void sleep_ms(unsigned ms) {
    ::usleep(ms * 1000);
}

}  // namespace

TEST(Watchdog, ManyCallsWithDeadlinesThatHoldDisturbNobody) {
    Watchdog watchdog(expire);
    watchdog.wake();
    for (int call = 0; call < 300'000; ++call) {
        watchdog.begin(monotonic_ns() + kHour);
        watchdog.end();
    }
}

TEST(Watchdog, ItRestsAndWakesWhileCallsComeAndGo) {
    Watchdog watchdog(expire);
    for (int round = 0; round < 200; ++round) {
        watchdog.wake();
        watchdog.begin(monotonic_ns() + kHour);
        if (round % 50 == 0) sleep_ms(6);
        watchdog.end();
        watchdog.rest();
    }
}

TEST(Watchdog, ItEndsWhileItRests) {
    Watchdog watchdog(expire);
    watchdog.rest();
    sleep_ms(10);
}

TEST(Watchdog, ADeadlineOfAnEarlierCallDoesNotHitTheNext) {
    Watchdog watchdog(expire);
    watchdog.wake();
    for (int round = 0; round < 20; ++round) {
        watchdog.begin(monotonic_ns() + 30'000'000);
        watchdog.end();
        watchdog.begin(0);
        sleep_ms(2);
        watchdog.end();
    }
    sleep_ms(40);
}

class WatchdogDeathTest : public testing::Test {
  protected:
    void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

TEST_F(WatchdogDeathTest, AFunctionThatRunsForEverIsEnded) {
    EXPECT_EXIT(
        {
            Watchdog watchdog(expire);
            watchdog.wake();
            watchdog.begin(monotonic_ns() + 20'000'000);
            for (;;) ::pause();
        },
        testing::ExitedWithCode(kExpired), "");
}

TEST_F(WatchdogDeathTest, AFunctionThatReturnsTooLateDoesNotReturnToItsWorker) {
    EXPECT_EXIT(
        {
            // The watchdog is answering for the call when the function comes back.
            Watchdog watchdog([] {
                sleep_ms(300);
                ::_exit(kExpired);
            });
            watchdog.wake();
            watchdog.begin(monotonic_ns());
            sleep_ms(100);
            watchdog.end();
            ::_exit(0);
        },
        testing::ExitedWithCode(kExpired), "");
}

}  // namespace rfaas::invocation
