// SPDX-License-Identifier: Apache-2.0
#include "runtime/cpu_count.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

namespace crease {
namespace {

double Smaller(double a, double b) {  // of two quotas, 0 being none
  if (a <= 0) return b;
  if (b <= 0) return a;
  return std::min(a, b);
}

// "max 100000" or "150000 100000".
double ReadVersion2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0, period = 0;
  if (!(file >> quota >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

double ReadVersion1(const std::string& folder) {
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us"), period_file(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

// The group at `path` below `base`, and those above it. Inside a container the path may name a place
// on the host that is not mounted; then the mount itself is the group.
double Climb(const std::string& base, std::string path, double (*read)(const std::string&)) {
  double quota = 0;
  while (path.size() > 1) {
    quota = Smaller(quota, read(base + path));
    path.resize(path.find_last_of('/'));
  }
  return Smaller(quota, read(base));
}

}  // namespace

double CgroupCpuQuota(const std::string& cgroup_file, const std::string& mount) {
  std::ifstream file(cgroup_file);
  std::string line;
  double quota = 0;
  while (std::getline(file, line)) {  // "hierarchy:controllers:path"
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos || second + 1 >= line.size() || line[second + 1] != '/') continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      quota = Smaller(quota, Climb(mount, path, ReadVersion2));
      continue;
    }
    std::stringstream names(controllers);
    std::string name;
    while (std::getline(names, name, ',')) {
      if (name != "cpu") continue;
      quota = Smaller(quota, Climb(mount + "/cpu", path, ReadVersion1));
      if (controllers != "cpu") quota = Smaller(quota, Climb(mount + "/" + controllers, path, ReadVersion1));
    }
  }
  return quota;
}

int DefaultThreadCount() {
  int count = static_cast<int>(std::thread::hardware_concurrency());
  // The mask may be wider than cpu_set_t's 1,024: grow until the kernel takes it.
  for (int cpus = 1024; cpus <= 1 << 17; cpus *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(cpus));
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(cpus));
    const bool read = sched_getaffinity(0, bytes, set) == 0;
    if (read) count = CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
    if (read) break;
  }
  const double quota = CgroupCpuQuota("/proc/self/cgroup", "/sys/fs/cgroup");
  if (quota > 0) count = std::min(count, static_cast<int>(std::ceil(std::min(quota, 1e6))));
  return std::max(count, 1);
}

int ThreadCount(int option) { return option > 0 ? option : DefaultThreadCount(); }

Result<void> CheckThreads(int option) {
  constexpr int kMost = 4096;
  if (option >= 0 && option <= kMost) return {};
  return Error{ErrorCode::kInvalidArgument,
               "expected threads of 0 to " + std::to_string(kMost) + ", got " + std::to_string(option), ""};
}

}  // namespace crease
