# ctypes_test.py - The shared library from Python: put, get and an error's text.
# SPDX-License-Identifier: Apache-2.0
import ctypes
import sys


class Slice(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_size_t)]


def main():
    loam = ctypes.CDLL(sys.argv[1])
    loam.loam_strerror.restype = ctypes.c_char_p
    pointer = ctypes.c_void_p
    loam.loam_open.argtypes = [ctypes.c_char_p, pointer, ctypes.POINTER(pointer)]
    loam.loam_put.argtypes = [pointer, pointer, Slice, Slice, pointer]
    loam.loam_get.argtypes = [pointer, pointer, Slice, pointer, ctypes.c_size_t,
                              ctypes.POINTER(ctypes.c_size_t), pointer]
    loam.loam_close.argtypes = [pointer]
    db, size, value = pointer(), ctypes.c_size_t(), ctypes.create_string_buffer(8)
    assert loam.loam_open(sys.argv[2].encode(), None, ctypes.byref(db)) == 0
    assert loam.loam_put(db, None, Slice(b"key", 3), Slice(b"value", 5), None) == 0
    assert loam.loam_get(db, None, Slice(b"key", 3), value, 8, ctypes.byref(size), None) == 0
    assert value.raw[:size.value] == b"value"
    assert loam.loam_get(db, None, Slice(b"no", 2), value, 8, ctypes.byref(size), None) == 1
    assert loam.loam_close(db) == 0
    assert loam.loam_strerror(-1) == b"bad argument or option"


main()
