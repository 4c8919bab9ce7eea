// SPDX-License-Identifier: Apache-2.0
// An allocation that fails is an error value here, not the end of the program. The sanitizers' libraries look these
// up in the program, so that they must be visible and linked whether or not the program calls them.
#define CREASE_SANITIZER_OPTIONS extern "C" __attribute__((visibility("default"))) const char*

CREASE_SANITIZER_OPTIONS __asan_default_options();
CREASE_SANITIZER_OPTIONS __asan_default_options() { return "allocator_may_return_null=1"; }

CREASE_SANITIZER_OPTIONS __tsan_default_options();
CREASE_SANITIZER_OPTIONS __tsan_default_options() { return "allocator_may_return_null=1"; }
