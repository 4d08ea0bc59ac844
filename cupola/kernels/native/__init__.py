"""The native CPU library: kernels in C++, called by XLA, in the instructions that this processor has."""
