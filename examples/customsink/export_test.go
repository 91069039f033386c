package customsink

// Break makes every write fail, as a lost disk does.
func (f *File) Break() { _ = f.file.Close() }
