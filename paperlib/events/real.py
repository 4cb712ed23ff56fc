SETS = {}
VARIED = {}
