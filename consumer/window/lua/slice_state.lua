-- Tell the serial of the last row in a slice, and when the slice was begun to be filled.

return {last_row(), redis.call('HGET', SLICE, 'begun') or ''}
