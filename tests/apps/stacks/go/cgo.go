//go:build cgo

package main

/*
extern void calledBack(void);

static void callBack(int depth) {
	volatile char ballast[64] = {0};
	if (depth > 0) {
		callBack(depth - 1);
		ballast[1] = 1;
	} else {
		calledBack();
	}
}
*/
import "C"

var pending func()

func init() {
	// Go calls C, which calls Go.
	shapes["callback"] = func(call func()) {
		pending = call
		C.callBack(3)
	}
}

//export calledBack
func calledBack() {
	pending()
}
