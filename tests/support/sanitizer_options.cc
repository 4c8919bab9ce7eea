// SPDX-License-Identifier: Apache-2.0
// An allocation that fails is an error value here, not the end of the program.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
