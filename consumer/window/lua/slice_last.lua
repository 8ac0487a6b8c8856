-- Tell the serial of the last row in a slice.

return last_row()
