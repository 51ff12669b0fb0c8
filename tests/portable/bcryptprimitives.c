/* Wine 8 has no bcryptprimitives.dll, whose ProcessPrng Rust's standard library takes random bytes from. This is it for Wine alone. */
#include <windows.h>

/* RtlGenRandom, by the name that advapi32 exports. */
BOOLEAN WINAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length) {
  while (length > 0) {
    ULONG part = length > 0x10000 ? 0x10000 : (ULONG)length;
    if (!SystemFunction036(data, part)) return FALSE;
    data += part;
    length -= part;
  }
  return TRUE;
}
