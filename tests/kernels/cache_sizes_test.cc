// SPDX-License-Identifier: Apache-2.0
#include "kernels/cache_sizes.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "tests/support/temporary_folder.h"

namespace crease {
namespace {

constexpr size_t kKilo = 1 << 10, kMega = 1 << 20, kGiga = 1 << 30;

TEST(CacheSizes, ParsesWhatLinuxWrites) {
  EXPECT_EQ(ParseCacheSize("32K"), 32 * kKilo);
  EXPECT_EQ(ParseCacheSize("8192K"), 8 * kMega);
  EXPECT_EQ(ParseCacheSize("32M"), 32 * kMega);
  EXPECT_EQ(ParseCacheSize("1G"), kGiga);
  EXPECT_EQ(ParseCacheSize("512"), 512u);
  EXPECT_EQ(ParseCacheSize("0K"), 0u);
}

TEST(CacheSizes, StrangeTextsAreNoSize) {
  for (const char* text : {"", "K", "-8K", "+8K", " 8K", "8k", "8KB", "8K ", "8 K", "8.5M", "0x8K", "large",
                           "99999999999999999999", "18446744073709551615K"}) {
    EXPECT_EQ(ParseCacheSize(text), 0u) << '"' << text << '"';
  }
  if constexpr (sizeof(size_t) == 8) {
    EXPECT_EQ(ParseCacheSize("18014398509481983K"), ~size_t{1023});  // the largest that fits
    EXPECT_EQ(ParseCacheSize("18014398509481984K"), 0u);
  }
}

// A folder of the form of /sys/devices/system/cpu/cpu0/cache.
class CacheFolderTest : public testing::Test {
 protected:
  void Write(int index, const std::string& level, const std::string& type, const std::string& size) {
    const std::string cache = "index" + std::to_string(index);
    root_.Write(cache + "/level", level + '\n');
    root_.Write(cache + "/type", type + '\n');
    root_.Write(cache + "/size", size + '\n');
  }
  // As read where sysconf says 1, 2 and 3 bytes.
  void Expect(size_t l1, size_t l2, size_t l3) {
    const CacheSizes sizes = ReadCacheSizes(root_.path(), {1, 2, 3});
    EXPECT_EQ(sizes.l1, l1);
    EXPECT_EQ(sizes.l2, l2);
    EXPECT_EQ(sizes.l3, l3);
  }
  test::TemporaryFolder root_;
};

TEST_F(CacheFolderTest, TakesDataByLevelsWhateverTheOrder) {
  Write(0, "1", "Data", "32K");
  Write(1, "1", "Instruction", "64K");
  Write(2, "2", "Unified", "512K");
  Write(3, "3", "Unified", "8192K");
  Expect(32 * kKilo, 512 * kKilo, 8 * kMega);
  Write(0, "3", "Unified", "8192K");
  Write(3, "1", "Data", "48K");
  Write(4, "2", "Instruction", "1M");
  Write(5, "4", "Unified", "128M");
  Expect(48 * kKilo, 512 * kKilo, 8 * kMega);
}

TEST_F(CacheFolderTest, KeepsWhatIsNotTold) {
  Expect(1, 2, 3);
  Write(0, "1", "Data", "");
  Write(1, "2", "Unified", "1M");
  Write(2, "3", "Unified", "much");
  Expect(1, kMega, 3);
}

TEST(CacheSizes, OfThisMachineArePlausible) {
  const CacheSizes& sizes = GetCacheSizes();
  EXPECT_GE(sizes.l1, 4 * kKilo);
  EXPECT_LE(sizes.l1, kMega);
  EXPECT_LE(sizes.l1, sizes.l2);
  EXPECT_LE(sizes.l2, sizes.l3);
  EXPECT_LE(sizes.l3, 4 * kGiga);
  EXPECT_EQ(&GetCacheSizes(), &sizes);
}

TEST(CacheSizes, OfThisMachineAreWhatLinuxSays) {
  const auto read = [](const char* name) {
    std::string word;
    std::ifstream(std::string("/sys/devices/system/cpu/cpu0/cache/index3/") + name) >> word;
    return word;
  };
  if (read("level") != "3" || ParseCacheSize(read("size")) == 0) GTEST_SKIP() << "no third level here";
  EXPECT_EQ(GetCacheSizes().l3, ParseCacheSize(read("size")));
}

}  // namespace
}  // namespace crease
