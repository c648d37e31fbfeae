package apogee.interop;

/** The client cannot do what the scenario is about. */
final class Lacks extends Exception {
    private static final long serialVersionUID = 1;

    Lacks(String why) {
        super(why);
    }
}
