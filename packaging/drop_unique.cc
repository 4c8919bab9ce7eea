// SPDX-License-Identifier: Apache-2.0
// drop_unique OBJECT: turns GNU's unique symbols (static variables of inline functions and templates) in an x86-64 or
// other 64-bit ELF object into plain global ones, which objcopy can make local; unique ones it leaves visible.
#include <elf.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::ifstream in(argv[1], std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  in.close();

  Elf64_Ehdr header;
  if (bytes.size() < sizeof(header)) return std::fprintf(stderr, "%s is not an object\n", argv[1]), 1;
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64) {
    return std::fprintf(stderr, "%s is not a 64-bit ELF object\n", argv[1]), 1;
  }
  // An object of more than 65,279 sections keeps their number in the first one.
  Elf64_Shdr section;
  std::memcpy(&section, bytes.data() + header.e_shoff, sizeof(section));
  const size_t section_count = header.e_shnum != 0 ? header.e_shnum : section.sh_size;
  for (size_t i = 0; i < section_count; ++i) {
    std::memcpy(&section, bytes.data() + header.e_shoff + i * sizeof(section), sizeof(section));
    if (section.sh_type != SHT_SYMTAB) continue;
    for (size_t at = section.sh_offset; at < section.sh_offset + section.sh_size; at += sizeof(Elf64_Sym)) {
      unsigned char& info = reinterpret_cast<unsigned char&>(bytes[at + offsetof(Elf64_Sym, st_info)]);
      if (ELF64_ST_BIND(info) == STB_GNU_UNIQUE) info = ELF64_ST_INFO(STB_GLOBAL, ELF64_ST_TYPE(info));
    }
  }
  std::ofstream out(argv[1], std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return out.flush() ? 0 : 1;
}
