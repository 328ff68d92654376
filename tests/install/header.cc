// header.cc - The header alone, as C++11: types, inline functions and one reference to the library.
// SPDX-License-Identifier: Apache-2.0
#include <loam/loam.h>

static_assert(LOAM_OK == 0, "done is 0");
static_assert(sizeof(loam_error) == 256, "an error may be copied as 256 bytes");

int main()
{
    loam_pin pin = LOAM_PIN_INIT;
    loam_slice key = LOAM_LIT("key");
    return loam_version() != 0 && pin.value.size == 0 && key.size == 3 ? 0 : 1;
}
