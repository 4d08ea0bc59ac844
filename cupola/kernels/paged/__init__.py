"""Attention over keys and values in pages, and writing to them."""

from cupola.kernels.paged.api import paged_attend as paged_attend
from cupola.kernels.paged.stored import Keys as Keys
from cupola.kernels.paged.stored import Values as Values
from cupola.kernels.paged.stored import stored_dtype as stored_dtype
from cupola.kernels.paged.write import write_pages as write_pages
from cupola.kernels.paged.write import write_tokens as write_tokens
