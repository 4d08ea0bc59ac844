// What this processor can do. Compiled without any flag, so that it runs on every x86-64.
#include <cpuid.h>

#include <cstdint>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

uint64_t enabled_states() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool has(uint32_t word, int bit) { return word >> bit & 1; }

// Tiles are for who asks the kernel for them.
bool tiles_permitted() {
#ifdef __linux__
  constexpr long kRequest = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

// The highest level (level.py) that the processor and the system allow; 0 is none.
extern "C" __attribute__((visibility("default"))) int cupola_level() {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, 27) || !has(c, 12) || !has(c, 29)) return 0;
  const uint64_t states = enabled_states();
  if ((states & 0x6) != 0x6) return 0;
  uint32_t b7, c7, d7, a71;
  if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !has(b7, 5)) return 0;
  if ((states & 0xe0) != 0xe0 || !has(b7, 16) || !has(b7, 17) || !has(b7, 30) || !has(b7, 31)) return 1;
  if (!__get_cpuid_count(7, 1, &a71, &b, &c, &d) || !has(a71, 5) || !has(c7, 11)) return 2;
  if ((states & 0x60000) != 0x60000 || !has(d7, 22) || !has(d7, 24) || !has(d7, 25)) return 3;
  return tiles_permitted() ? 4 : 3;
}
