/* Starts a program as ssh does on Windows, with pipes of Windows: Wine keeps those that it has inherited itself open. Sends "first, ",
   reads to the end of its output, prints that and whether the program still runs, sends "last" then, and ends with its exit code. */
#include <stdio.h>
#include <string.h>
#include <windows.h>

int main(int argc, char **argv) {
  char line[4096] = "", output[4096];
  HANDLE to_read, to_write, from_read, from_write;
  SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
  STARTUPINFOA start = {sizeof start};
  PROCESS_INFORMATION child;
  DWORD count, length = 0, code;
  for (int i = 1; i < argc; i++) {
    if (strlen(line) + strlen(argv[i]) + 4 > sizeof line) return 100;
    strcat(strcat(strcat(line, i > 1 ? " \"" : "\""), argv[i]), "\"");
  }
  if (!CreatePipe(&to_read, &to_write, &inherited, 0) || !CreatePipe(&from_read, &from_write, &inherited, 0)) return 101;
  SetHandleInformation(to_write, HANDLE_FLAG_INHERIT, 0);
  SetHandleInformation(from_read, HANDLE_FLAG_INHERIT, 0);
  start.dwFlags = STARTF_USESTDHANDLES;
  start.hStdInput = to_read;
  start.hStdOutput = from_write;
  start.hStdError = GetStdHandle(STD_ERROR_HANDLE);
  if (!CreateProcessA(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &start, &child)) return 102;
  CloseHandle(to_read);
  CloseHandle(from_write);
  if (!WriteFile(to_write, "first, ", 7, &count, NULL)) return 103;
  while (length < sizeof output && ReadFile(from_read, output + length, sizeof output - length, &count, NULL) && count > 0) length += count;
  printf("%.*s, %s", (int)length, output, WaitForSingleObject(child.hProcess, 0) == WAIT_TIMEOUT ? "running" : "ended");
  fflush(stdout);
  if (!WriteFile(to_write, "last", 4, &count, NULL)) return 104;
  CloseHandle(to_write);
  WaitForSingleObject(child.hProcess, INFINITE);
  return GetExitCodeProcess(child.hProcess, &code) ? (int)code : 105;
}
