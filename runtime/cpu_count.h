// SPDX-License-Identifier: Apache-2.0
// How many threads this process may keep busy.
#pragma once

#include <string>

#include "crease/status.h"

namespace crease {

// CPUs of the affinity mask, or fewer where a cgroup's quota allows less (rounded up); at least 1.
int DefaultThreadCount();

// As many as an option says, DefaultThreadCount() for 0.
int ThreadCount(int option);

// An error (kInvalidArgument) for an option below 0 or above 4096.
Result<void> CheckThreads(int option);

// The tightest quota of a process's cgroups in CPUs, 0 if there is none: version 2's cpu.max or
// version 1's cpu.cfs_quota_us / cpu.cfs_period_us, of the group and of every group above it.
// `cgroup_file` is /proc/self/cgroup and `mount` /sys/fs/cgroup, other paths in tests. Files that are
// missing or strange count as no limit.
double CgroupCpuQuota(const std::string& cgroup_file, const std::string& mount);

}  // namespace crease
